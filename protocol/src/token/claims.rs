//! The claims of each kind of token (architecture s.4, trust s.2, s.3).

use serde::{Deserialize, Serialize};

use super::grant::{Libraries, Permission, Scope};
use super::{HubClaims, MAX_EDGE_LIST, SelfClaims};
use crate::hostname::Hostname;
use crate::ids::{EdgeId, ServerId, SessionId, ShareId, TokenId, TunnelId, UserId};
use crate::keys::PublicKey;

/// Value of `use` in a viewer ticket that a program holds itself.
pub const USE_CLIENT: &str = "client";

/// The key that a token is bound to (RFC 7800).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cnf {
    pub jwk: PublicKey,
}

/// "This is server S": what a claimed server keeps. Claims as upstream (upstream-api s.2.2); native ones carry `cnf`
/// and `gen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    pub iss: String,
    pub sub: ServerId,
    pub aud: String,
    pub exp: i64,
    pub iat: i64,
    pub kid: String,
    pub hub_base_url: String,
    pub server_id: ServerId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Cnf>,
    /// Generation of the server's credentials; absent in legacy ones, which count as 0.
    #[serde(default, rename = "gen", skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

impl HubClaims for Enrollment {
    const TYP: &'static str = "JWT";
    const AUD: &'static str = "server";

    fn parties(&self) -> (&str, &str) {
        (&self.iss, &self.aud)
    }
    fn times(&self) -> (i64, i64) {
        (self.iat, self.exp)
    }
    fn consistent(&self, kid: &str) -> bool {
        self.kid == kid && self.sub == self.server_id
    }
}

/// Who must sign in at a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Viewers need a ticket.
    #[default]
    Protected,
    /// Anybody gets in; the origin's own login guards it. Only by the owner's choice, never for legacy servers.
    Open,
}

/// Where TLS of a name ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// At the edge.
    #[default]
    Terminated,
    /// At the agent; the edge routes by SNI.
    Passthrough,
}

/// A name of a server, as its tunnel ticket says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedHost {
    pub host: Hostname,
    pub access: Access,
    #[serde(default)]
    pub tls: Tls,
}

/// What a server's tunnels may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Streams open at once in one tunnel.
    pub streams: u32,
    /// Largest request or response head, in bytes.
    pub header_bytes: u32,
}

/// "Server S may open tunnels." Worthless without the server's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelTicket {
    pub iss: String,
    pub sub: ServerId,
    pub aud: String,
    pub iat: i64,
    pub exp: i64,
    pub jti: TokenId,
    pub server_id: ServerId,
    pub cnf: Cnf,
    #[serde(rename = "gen")]
    pub generation: u64,
    pub names: Vec<NamedHost>,
    pub limits: Limits,
    /// The bulletin's revision when it was issued (trust s.9.4).
    pub rev: u64,
}

impl HubClaims for TunnelTicket {
    const TYP: &'static str = "phlix-tunnel+jwt";
    const AUD: &'static str = "relay-edge";

    fn parties(&self) -> (&str, &str) {
        (&self.iss, &self.aud)
    }
    fn times(&self) -> (i64, i64) {
        (self.iat, self.exp)
    }
    fn consistent(&self, _kid: &str) -> bool {
        self.sub == self.server_id
    }
}

/// "User U may reach server S."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewerTicket {
    pub iss: String,
    pub sub: UserId,
    pub aud: String,
    pub iat: i64,
    pub exp: i64,
    pub jti: TokenId,
    /// The sign-in that it came from.
    pub sid: SessionId,
    pub server_id: ServerId,
    /// The share it rests on; absent for the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_id: Option<ShareId>,
    /// `null`: the whole server.
    #[serde(default)]
    pub libs: Libraries,
    pub perm: Permission,
    pub scope: Scope,
    /// The one name it is good for; absent for the proxy path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Hostname>,
    /// The one edge it is good at; absent in tickets that travel with the viewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeId>,
    /// `client`: held by a program.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// Bits per second, 0 = unlimited.
    pub rate: u64,
    /// Requests at once, 0 = unlimited.
    pub streams: u32,
    /// The bulletin's revision when it was issued (trust s.9.4).
    pub rev: u64,
}

impl HubClaims for ViewerTicket {
    const TYP: &'static str = "phlix-viewer+jwt";
    const AUD: &'static str = "relay-edge";

    fn parties(&self) -> (&str, &str) {
        (&self.iss, &self.aud)
    }
    fn times(&self) -> (i64, i64) {
        (self.iat, self.exp)
    }
    fn consistent(&self, _kid: &str) -> bool {
        // A ticket that is bound to nothing would be good everywhere: each has a host or an edge.
        self.host.is_some() || self.edge.is_some()
    }
}

/// One edge, as agents need to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeEntry {
    pub id: EdgeId,
    pub key: PublicKey,
    /// IP addresses or host names to dial, best first.
    pub addresses: Vec<String>,
    pub port: u16,
    pub region: String,
    /// Names that the edge answers to in `hello.edge`, and that its certificate may carry.
    pub names: Vec<String>,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS key, base64url, where it has no public certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki: Option<String>,
    /// A TLS-terminating proxy stands before it: no channel binding over WebSocket.
    #[serde(default)]
    pub behind_proxy: bool,
}

/// The edges that an agent may dial, signed by the hub: what their word is checked against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeList {
    pub iss: String,
    pub aud: String,
    pub iat: i64,
    pub exp: i64,
    pub edges: Vec<EdgeEntry>,
}

impl HubClaims for EdgeList {
    const TYP: &'static str = "phlix-edges+jwt";
    const AUD: &'static str = "server";
    const MAX: usize = MAX_EDGE_LIST;

    fn parties(&self) -> (&str, &str) {
        (&self.iss, &self.aud)
    }
    fn times(&self) -> (i64, i64) {
        (self.iat, self.exp)
    }
}

/// "This is edge E, making this very request": header `X-Phlix-Edge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeIdentity {
    pub sub: EdgeId,
    pub aud: String,
    pub iat: i64,
    pub jti: String,
    /// Method.
    pub htm: String,
    /// Path and query, as sent.
    pub htu: String,
    /// SHA-256 of the body, base64url; absent on requests of viewers that the edge passes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bh: Option<String>,
}

impl EdgeIdentity {
    /// Audience of these tokens.
    pub const AUD: &'static str = "control-plane";
}

impl SelfClaims for EdgeIdentity {
    const TYP: &'static str = "phlix-edge+jwt";
    const MAX_AGE: i64 = 60;

    fn issued_at(&self) -> i64 {
        self.iat
    }
    fn audience(&self) -> Option<(&str, &'static str)> {
        Some((&self.aud, Self::AUD))
    }
}

/// A native server's signature over one of its calls: header `X-Phlix-Proof` (trust s.2.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestProof {
    /// Method.
    pub htm: String,
    /// Path and query, as sent.
    pub htu: String,
    /// SHA-256 of the body (also of an empty one), base64url.
    pub bh: String,
    pub iat: i64,
    pub jti: String,
}

impl SelfClaims for RequestProof {
    const TYP: &'static str = "phlix-proof+jwt";
    const MAX_AGE: i64 = 60;

    fn issued_at(&self) -> i64 {
        self.iat
    }
}

/// "My tunnel T ends at edge E": what the control plane and DNS believe instead of an edge's own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    pub server_id: ServerId,
    pub edge_id: EdgeId,
    pub tunnel_id: TunnelId,
    /// In the hub's time, which the agent learned from `welcome.now`.
    pub iat: i64,
}

impl SelfClaims for Presence {
    const TYP: &'static str = "phlix-presence+jwt";
    const MAX_AGE: i64 = 600;

    fn issued_at(&self) -> i64 {
        self.iat
    }
}
