//! What `phlix agent status` shows: a small file that the running agent keeps up to date.

use std::path::Path;

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{EdgeId, ServerId, TunnelId};
use serde::{Deserialize, Serialize};

use super::{StateError, files, is_running};

const FILE: &str = "status.json";

/// How an agent is doing. Times are unix seconds by this machine's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether an agent runs on this folder now; all else is what it, or the last one, wrote.
    #[serde(skip)]
    pub running: bool,
    pub updated_at: i64,
    pub version: String,
    pub hub: String,
    pub origin: String,
    pub stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ServerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_name: Option<String>,
    #[serde(default)]
    pub names: Vec<Hostname>,
    pub origin_up: bool,
    /// The last thing that went wrong and was not put right since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Where an agent stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Stage {
    #[default]
    Starting,
    /// Waits for somebody to enter the code.
    Claiming {
        code: String,
        url: String,
        expires_at: i64,
    },
    /// Has no tunnel.
    Connecting,
    Connected {
        edge: String,
        edge_id: EdgeId,
        region: String,
        tunnel_id: TunnelId,
        /// What carries it: `quic` or `websocket`.
        #[serde(default)]
        transport: String,
        since: i64,
    },
    Stopped,
}

/// Reads how the agent of a folder is doing; `None` where none ever ran.
pub fn status(folder: &Path) -> Result<Option<Status>, StateError> {
    let path = folder.join(FILE);
    let Some(bytes) = files::read(&path).map_err(|source| StateError::Read { path: path.clone(), source })? else {
        return Ok(None);
    };
    let mut status: Status = serde_json::from_slice(&bytes)
        .map_err(|_| StateError::Damaged { path, what_to_do: "it is written anew when the agent runs" })?;
    status.running = is_running(folder);
    Ok(Some(status))
}

/// Writes the file.
pub(crate) fn write(folder: &Path, status: &Status) -> std::io::Result<()> {
    let json = serde_json::to_vec_pretty(status).expect("a status is a plain struct");
    files::replace(&folder.join(FILE), &json)
}
