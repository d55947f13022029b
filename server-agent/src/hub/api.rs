//! The calls, one by one (upstream-api s.2.2, s.2.3, s.7.1; trust s.2.5, s.7).

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use phlix_protocol::b64;
use phlix_protocol::ids::{ClaimId, ServerId};
use phlix_protocol::keys::{Jwk, Jwks, SigningKey};
use phlix_protocol::native::proof::claim_input;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{HubClient, HubError, Identity};

/// Version that the hub is told.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A claim that waits for somebody to enter its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingClaim {
    pub(crate) id: ClaimId,
    pub(crate) code: String,
    pub(crate) expires_in: Duration,
    /// Where a person goes; carries the code.
    pub(crate) url: String,
}

/// What became of a claim.
#[derive(PartialEq, Eq)]
pub(crate) enum ClaimState {
    Pending,
    Expired,
    Claimed { enrollment: String, jwks_path: String, server_id: ServerId, owner_name: Option<String> },
}

/// Ticket and edge list, both as the hub signed them.
#[derive(Deserialize)]
pub(crate) struct TicketReply {
    pub(crate) ticket: String,
    pub(crate) edges: String,
}

impl HubClient {
    /// Asks for a claim, proving the server's key (trust s.7).
    pub(crate) async fn new_claim(&self, server_name: &str, key: &SigningKey) -> Result<PendingClaim, HubError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct NewClaim<'a> {
            server_name: &'a str,
            version: &'a str,
            public_keys_jwk: Jwk,
            hostname_candidates: [&'a str; 0],
            protocol_version: &'a str,
            proof: ClaimProof,
        }
        #[derive(Serialize)]
        struct ClaimProof {
            time: i64,
            signature: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reply {
            claim_code: String,
            expires_in: u64,
            claim_id: ClaimId,
            #[serde(default)]
            hub_base_url: Option<String>,
        }
        let claim = || {
            let time = self.clock.now();
            json(&NewClaim {
                server_name,
                version: VERSION,
                public_keys_jwk: key.public().jwk(),
                hostname_candidates: [],
                protocol_version: "v1",
                proof: ClaimProof { time, signature: b64::encode(key.sign(&claim_input(self.origin(), time))) },
            })
        };
        let reply: Reply = self.in_time(|| self.call(Method::POST, "/api/v1/server-claims/new", claim())).await?;
        let plain_code = (1..=32).contains(&reply.claim_code.len())
            && reply.claim_code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plain_code {
            return Err(HubError::Nonsense("its claim code"));
        }
        let page = public_origin(reply.hub_base_url.as_deref()).unwrap_or_else(|| self.origin().to_owned());
        Ok(PendingClaim {
            id: reply.claim_id,
            url: format!("{page}/claim-server?code={}", reply.claim_code),
            code: reply.claim_code,
            // An hour: six times what hubs give. More would only keep a dead code on the screen.
            expires_in: Duration::from_secs(reply.expires_in.min(3600)),
        })
    }

    /// Looks at a claim.
    pub(crate) async fn claim_state(&self, id: ClaimId) -> Result<ClaimState, HubError> {
        #[derive(Deserialize)]
        struct Reply {
            status: String,
            #[serde(default)]
            enrollment_jwt: Option<String>,
            #[serde(default)]
            hub_jwks_url: Option<String>,
            #[serde(default)]
            server_id: Option<ServerId>,
            #[serde(default)]
            owner_name: Option<String>,
        }
        let path = format!("/api/v1/server-claims/{id}");
        let reply: Reply = self.call(Method::GET, &path, Bytes::new()).await?;
        match reply.status.as_str() {
            "expired" => Ok(ClaimState::Expired),
            "claimed" => {
                let (Some(enrollment), Some(jwks_url), Some(server_id)) =
                    (reply.enrollment_jwt, reply.hub_jwks_url, reply.server_id)
                else {
                    return Err(HubError::Nonsense("it says claimed, without enrollment, key set or server"));
                };
                // The keys are fetched where the operator sent us, whose trust was settled: not at another origin
                // that this reply might name.
                let jwks_url = Url::parse(&jwks_url).map_err(|_| HubError::Nonsense("the address of its key set"))?;
                let jwks_path = jwks_url[url::Position::BeforePath..url::Position::AfterQuery].to_owned();
                let owner_name =
                    reply.owner_name.map(|name| name.chars().filter(|c| !c.is_control()).take(100).collect());
                Ok(ClaimState::Claimed { enrollment, jwks_path, server_id, owner_name })
            }
            //= upstream-api s.7.1: anything else is pending
            _ => Ok(ClaimState::Pending),
        }
    }

    /// Fetches a tunnel ticket and the edges that may be dialled.
    pub(crate) async fn tunnel_ticket(&self, identity: &Identity, server: ServerId) -> Result<TicketReply, HubError> {
        self.signed_call(identity, &format!("/api/v1/servers/{server}/tunnel-ticket"), Bytes::from_static(b"{}")).await
    }

    /// Says that the server is alive.
    pub(crate) async fn heartbeat(
        &self,
        identity: &Identity,
        server: ServerId,
        uptime: Duration,
        active_sessions: usize,
    ) -> Result<(), HubError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Heartbeat<'a> {
            server_id: ServerId,
            version: &'a str,
            timestamp: i64,
            uptime_seconds: u64,
            active_sessions: usize,
            active_transcodes: u32,
            hostname_candidates: [&'a str; 0],
            libraries: [&'a str; 0],
        }
        let heartbeat = Heartbeat {
            server_id: server,
            version: VERSION,
            timestamp: self.clock.now(),
            uptime_seconds: uptime.as_secs(),
            active_sessions,
            active_transcodes: 0,
            hostname_candidates: [],
            libraries: [],
        };
        let path = format!("/api/v1/servers/{server}/heartbeat");
        self.signed_call::<serde_json::Value>(identity, &path, json(&heartbeat)).await.map(|_| ())
    }

    /// Fetches a new enrollment; the old one stays good until it expires.
    pub(crate) async fn renew(&self, identity: &Identity, server: ServerId) -> Result<String, HubError> {
        #[derive(Deserialize)]
        struct Reply {
            enrollment_jwt: String,
        }
        let path = format!("/api/v1/servers/{server}/renew");
        let reply: Reply = self.signed_call(identity, &path, Bytes::from_static(b"{}")).await?;
        Ok(reply.enrollment_jwt)
    }

    /// Fetches the hub's key set.
    pub(super) async fn key_set(&self, path: &str) -> Result<Jwks, HubError> {
        self.call(Method::GET, path, Bytes::new()).await
    }
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("requests are plain structs").into()
}

/// The origin that the hub says people reach it by, if it is one of the web's.
fn public_origin(url: Option<&str>) -> Option<String> {
    let url = Url::parse(url?).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}
