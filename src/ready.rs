//! The ready file: what is bound and where, as JSON, written when everything listens. For scripts and tests that asked
//! for port 0.

use std::io;
use std::path::Path;

use serde::Serialize;

/// What `serve` tells.
#[derive(Debug, Serialize)]
pub(crate) struct HubReady {
    pub http: String,
    pub tls: String,
    pub metrics: String,
    /// Where existing media servers open their tunnels.
    pub relay_server: String,
    /// Where raw clients of theirs connect.
    pub relay_client: String,
    pub public_url: String,
    pub public_domain: String,
    /// The development CA's certificate, PEM.
    pub ca_file: String,
    /// SHA-256 of the TLS key (SubjectPublicKeyInfo), hex.
    pub spki_sha256: String,
    pub pid: u32,
}

/// What `agent` tells, written anew at each change.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct AgentReady {
    pub claim_code: Option<String>,
    pub claim_url: Option<String>,
    pub server_id: Option<String>,
    pub connected: bool,
    pub pid: u32,
}

/// Writes the file whole or not at all: a reader never sees half of it.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec_pretty(value)?;
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, json)?;
    std::fs::rename(&temporary, path)
}
