//! What an edge and the control plane say to each other: HTTP with JSON under `/edge/v1`.
//!
//! Every request carries `X-Phlix-Edge` (`token::EdgeIdentity`, signed by the edge's own key). The *directory* answers
//! questions, the *bulletin* is a stream of lines that tells what changed, *reports* go up in batches (architecture s.5).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::hostname::Hostname;
use crate::ids::{EdgeId, InstanceId, ServerId, SessionId, ShareId, TokenId, TunnelId, UserId};
use crate::keys::{Jwks, PublicKey};
use crate::token::{Access, EdgeEntry, Tls};

/// Header with the edge's identity.
pub const EDGE_HEADER: &str = "x-phlix-edge";

/// Paths on the control plane.
pub mod paths {
    /// POST `Register` -> `Registered`. Also repeated at each start of an edge.
    pub const REGISTER: &str = "/edge/v1/register";
    /// GET, answers a stream of `BulletinLine`, one JSON document a line (NDJSON), for ever. `?since=REVISION` resumes:
    /// changes after it are sent first where they are still kept, else a snapshot.
    pub const BULLETIN: &str = "/edge/v1/bulletin";
    /// GET `/edge/v1/hosts/{host}` -> `Route`, 404 where nobody has that name.
    pub const HOSTS: &str = "/edge/v1/hosts";
    /// POST `ExchangeRequest` -> `ExchangeReply`; 401, 403, 404 with the body that the viewer gets.
    pub const VIEWER_TICKETS: &str = "/edge/v1/viewer-tickets";
    /// POST `RenewRequest` -> `TicketReply`; 401 or 403 where session or right are gone.
    pub const RENEW_VIEWER_TICKET: &str = "/edge/v1/viewer-tickets/renew";
    /// POST `NameCode` -> `TicketReply`; 401 for a code that is wrong, used or late.
    pub const NAME_CODES: &str = "/edge/v1/name-codes";
    /// POST `RelayToken` -> `TicketReply` of scope `Tunnel`; 401 for a token that is unknown, late or revoked, 403 for a
    /// server that is not its user's, 404 for one that is gone. Core edges only.
    pub const RELAY_TOKENS: &str = "/edge/v1/relay-tokens";
    /// GET `/edge/v1/servers/{id}/state` -> `ServerState`, 404 where there is no such server.
    pub const SERVERS: &str = "/edge/v1/servers";
    /// POST `PresenceReport` -> `PresenceReply`, at least every 10 s: the lease.
    pub const PRESENCE: &str = "/edge/v1/presence";
}

/// What an edge may do (trust s.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeRole {
    /// Trusted like the hub: carries the hub's own domain, exchanges users' credentials.
    Core,
    /// Native tunnels and names that were granted to it.
    Outer,
}

/// Where an edge's admission stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeStatus {
    /// Waits for an admin's approval of its fingerprint.
    Pending,
    Approved,
    Revoked,
}

/// An edge says who and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    pub edge_id: EdgeId,
    pub key: PublicKey,
    pub region: String,
    /// Names that agents and viewers may dial it by.
    pub names: Vec<String>,
    /// Addresses to dial, best first.
    pub addresses: Vec<String>,
    /// TLS port, TCP and UDP.
    pub port: u16,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS key, base64url, where it has no public certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spki: Option<String>,
    #[serde(default)]
    pub behind_proxy: bool,
    pub version: String,
    /// One-time right to register, for an edge that is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_token: Option<String>,
}

/// What the hub made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub edge_id: EdgeId,
    pub role: EdgeRole,
    pub status: EdgeStatus,
    /// SHA-256 of the edge's key as base64url (its key id): what an admin compares.
    pub fingerprint: String,
}

/// What kind of origin stands behind a server (architecture s.5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// An unmodified Phlix server with its own legacy tunnel.
    Phlix,
    /// Whatever stands behind our agent.
    Generic,
}

/// A name's route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub host: Hostname,
    pub server_id: ServerId,
    pub kind: ServerKind,
    pub access: Access,
    pub tls: Tls,
    /// Refuse the administrative paths that media servers open to local callers (native-tunnel s.5).
    pub guard_local_paths: bool,
    /// Port that URLs of names carry.
    pub names_port: u16,
    /// The bulletin's revision when it was read.
    pub rev: u64,
}

/// What a viewer showed on the hub's own domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "lowercase")]
pub enum Credential {
    /// An access token.
    Bearer(String),
    /// The session cookie's value.
    Session(String),
}

/// A core edge asks for a viewer's ticket to the proxy path of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeRequest {
    pub credential: Credential,
    pub server_id: ServerId,
}

/// The ticket, bound to the edge that asked, and what kind of server it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeReply {
    pub ticket: String,
    /// Unix seconds.
    pub expires_at: i64,
    pub kind: ServerKind,
    /// The URL of the server's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether the server gives signs of life, as `ServerState` says it, when the ticket was made.
    #[serde(default)]
    pub online: bool,
}

/// How a server is, apart from its tunnels here: tells "offline" from "at home, but without a tunnel".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerState {
    /// It has a tunnel somewhere, or its last heartbeat is recent.
    pub online: bool,
}

/// What a client app shows at the mount of a legacy server (legacy-relay-wire s.4).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayToken {
    pub token: String,
    pub server_id: ServerId,
}

/// A relay token opens a server: silent.
impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayToken").field("server_id", &self.server_id).finish_non_exhaustive()
    }
}

/// A ticket past half its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    pub ticket: String,
}

/// A single-use code from the hub's sign-in page (trust s.6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameCode {
    pub code: String,
    pub host: Hostname,
    /// What the challenge was the SHA-256 of.
    pub verifier: String,
}

/// A viewer's ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketReply {
    pub ticket: String,
    /// Unix seconds.
    pub expires_at: i64,
}

/// Tunnels that opened and closed since the last report; also the edge's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceReport {
    /// Random per start of the edge: a new one ends what the old one had.
    pub instance: InstanceId,
    /// `opened` lists every tunnel that there is.
    pub full: bool,
    pub opened: Vec<OpenedTunnel>,
    pub closed: Vec<TunnelId>,
}

/// A tunnel with its agent's word for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedTunnel {
    pub server_id: ServerId,
    pub tunnel_id: TunnelId,
    /// JWT, `token::Presence`; absent for legacy tunnels (believed of core edges alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// How a legacy tunnel came; absent for native ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy: Option<LegacyOpening>,
}

/// How a legacy tunnel came: what its owner is warned of rests on it (trust s.9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyOpening {
    /// Its connection was TLS, all the way to the edge or to a proxy that the edge believes.
    pub tls: bool,
    /// Where it came from, as the edge sees it.
    pub address: IpAddr,
}

/// What the hub wants next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceReply {
    /// The lease was gone: send a full report.
    pub full: bool,
}

/// One line of the bulletin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BulletinLine {
    /// Everything; on connect and every 30 s.
    Snapshot(Snapshot),
    /// One change; revisions rise by one.
    Change { revision: u64, change: Change },
    /// Nothing new, still here; at least every 5 s.
    Tick { revision: u64 },
}

/// The world as edges need to know it, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub revision: u64,
    /// The hub's clock, unix seconds.
    pub now: i64,
    pub jwks: Jwks,
    pub edges: Vec<EdgeEntry>,
    pub revocations: Vec<Revocation>,
    /// Least generation of credentials per server, where above 0.
    pub generations: Vec<Generation>,
    /// Legacy servers whose plain tunnels are refused, since they have used TLS (trust s.9.6).
    #[serde(default)]
    pub tls_only: Vec<ServerId>,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    Keys {
        jwks: Jwks,
    },
    Edges {
        edges: Vec<EdgeEntry>,
    },
    Revoked {
        revocation: Revocation,
    },
    Generation {
        generation: Generation,
    },
    /// A legacy server has used TLS from now on, or its owner takes that back.
    TlsOnly {
        server_id: ServerId,
        required: bool,
    },
    /// Names of a server, their access, or the server itself changed: forget these hosts' routes.
    Route {
        server_id: ServerId,
        hosts: Vec<Hostname>,
    },
    /// A kind of a newer version.
    #[serde(other)]
    Unknown,
}

/// Least generation of a server's credentials that is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub server_id: ServerId,
    pub least: u64,
}

/// Tickets that are no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    #[serde(flatten)]
    pub selector: Selector,
    /// Issued at or before this, unix seconds.
    pub issued_until: i64,
    /// Kept until then, unix seconds: the latest expiry of what it covers, plus skew.
    pub keep_until: i64,
}

/// Which tickets (trust s.9.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "selector", content = "id", rename_all = "lowercase")]
pub enum Selector {
    Sub(UserId),
    Sid(SessionId),
    Share(ShareId),
    Server(ServerId),
    Jti(TokenId),
    Edge(EdgeId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_bulletin_round_trip() {
        let revocation = Revocation {
            selector: Selector::Server("00000000-0000-4000-8000-000000000004".parse().expect("id")),
            issued_until: 5,
            keep_until: 9,
        };
        let lines = [
            BulletinLine::Tick { revision: 3 },
            BulletinLine::Change { revision: 4, change: Change::Revoked { revocation } },
            BulletinLine::Snapshot(Snapshot {
                revision: 5,
                now: 6,
                jwks: Jwks::default(),
                edges: Vec::new(),
                revocations: vec![revocation],
                generations: Vec::new(),
                tls_only: Vec::new(),
            }),
        ];
        for line in lines {
            let json = serde_json::to_string(&line).expect("serializes");
            assert!(!json.contains('\n'));
            assert_eq!(serde_json::from_str::<BulletinLine>(&json).expect("round trip"), line);
        }
    }

    #[test]
    fn what_an_older_part_says_is_still_read() {
        let snapshot = r#"{"type":"snapshot","revision":1,"now":2,"jwks":{"keys":[]},"edges":[],"revocations":[],"generations":[]}"#;
        let BulletinLine::Snapshot(snapshot) = serde_json::from_str(snapshot).expect("parses") else {
            panic!("not a snapshot")
        };
        assert_eq!(snapshot.tls_only, []);
        let id = "00000000-0000-4000-8000-000000000004";
        let opened: OpenedTunnel =
            serde_json::from_str(&format!(r#"{{"server_id":"{id}","tunnel_id":"{id}"}}"#)).expect("parses");
        assert_eq!((opened.statement, opened.legacy), (None, None));
        let reply: ExchangeReply =
            serde_json::from_str(r#"{"ticket":"t","expires_at":1,"kind":"phlix"}"#).expect("parses");
        assert!(!reply.online);
    }

    #[test]
    fn a_change_of_a_newer_kind_is_told_apart() {
        let json = r#"{"type":"change","revision":7,"change":{"kind":"weather","sun":true}}"#;
        let line: BulletinLine = serde_json::from_str(json).expect("parses");
        assert_eq!(line, BulletinLine::Change { revision: 7, change: Change::Unknown });
    }
}
