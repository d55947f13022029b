//! A stand-in for the hub: signs what the real one signs, checks what the real one checks.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ClaimId, ServerId, SessionId, TokenId, UserId};
use phlix_protocol::keys::{Jwk, Jwks, PublicKey, SigningKey};
use phlix_protocol::native::proof::claim_input;
use phlix_protocol::token::{
    self, Access, Cnf, EdgeEntry, EdgeList, Enrollment, Libraries, Limits, NamedHost, Permission, RequestProof, Scope,
    Tls, TunnelTicket, ViewerTicket,
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::clock::unix;
use crate::random;

pub(super) fn now() -> i64 {
    unix(SystemTime::now())
}

pub(crate) fn host(name: &str) -> Hostname {
    name.parse().unwrap()
}

/// What a test may bend.
pub(super) struct Bends {
    pub(super) edges: Vec<EdgeEntry>,
    pub(super) names: Vec<NamedHost>,
    /// Who signs edge lists and tickets.
    pub(super) signer: SigningKey,
    /// For whom tickets are.
    pub(super) ticket_server: Option<ServerId>,
    /// Answer every call of a claimed server so.
    pub(super) refuse: Option<(StatusCode, &'static str)>,
    /// How far its clock is off.
    pub(super) clock: i64,
    pub(super) claim_expires_in: u64,
    pub(super) claimed: bool,
    pub(super) enrollment_life: i64,
    /// Answers of any kind while it is `true` are 503.
    pub(super) away: bool,
}

pub(super) struct FakeHub {
    pub(super) url: String,
    pub(super) key: SigningKey,
    pub(super) server: ServerId,
    /// What claims must be proved for.
    pub(super) origin: Mutex<String>,
    bends: Mutex<Bends>,
    calls: Mutex<Vec<String>>,
    called: Notify,
    agent_key: Mutex<Option<PublicKey>>,
    claim: ClaimId,
}

impl FakeHub {
    pub(super) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = SigningKey::from_seed(&random::bytes());
        let hub = Arc::new(Self {
            origin: Mutex::new(format!("http://{}", listener.local_addr().unwrap())),
            url: format!("http://{}", listener.local_addr().unwrap()),
            server: ServerId::new(random::uuid()),
            bends: Mutex::new(Bends {
                edges: vec![],
                names: vec![
                    NamedHost { host: host("a.hub.localhost"), access: Access::Protected, tls: Tls::Terminated },
                    NamedHost { host: host("open.hub.localhost"), access: Access::Open, tls: Tls::Terminated },
                ],
                signer: key.clone(),
                ticket_server: None,
                refuse: None,
                clock: 0,
                claim_expires_in: 600,
                claimed: true,
                enrollment_life: 604_800,
                away: false,
            }),
            key,
            calls: Mutex::default(),
            called: Notify::new(),
            agent_key: Mutex::default(),
            claim: ClaimId::new(random::uuid()),
        });
        let serving = Arc::clone(&hub);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let hub = Arc::clone(&serving);
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
                    TokioIo::new(socket),
                    service_fn(move |request| {
                        let hub = Arc::clone(&hub);
                        async move { Ok::<_, Infallible>(hub.answer(request).await) }
                    }),
                ));
            }
        });
        hub
    }

    pub(super) fn bend(&self) -> MutexGuard<'_, Bends> {
        self.bends.lock().unwrap()
    }

    /// How often a path's end was called.
    pub(super) fn count(&self, ending: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|path| path.ends_with(ending)).count()
    }

    /// Waits until a path's end was called so often.
    pub(super) async fn wait_for(&self, ending: &str, times: usize) {
        loop {
            let called = self.called.notified();
            if self.count(ending) >= times {
                return;
            }
            called.await;
        }
    }

    /// A viewer's ticket as the hub gives it for a name.
    pub(super) fn viewer_claims(&self, name: &str) -> ViewerTicket {
        viewer_claims(self.server, name, now())
    }

    pub(super) fn viewer_ticket(&self, name: &str) -> String {
        token::sign(&self.viewer_claims(name), &self.key)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = head.uri.path_and_query().unwrap().to_string();
        let (status, mut reply) = self.reply(&head, &path, &body);
        self.calls.lock().unwrap().push(path);
        self.called.notify_waiters();
        if status != StatusCode::OK && reply.is_null() {
            reply = serde_json::json!({"error": "no", "code": "test"});
        }
        let mut response = Response::builder().status(status);
        let clock = self.bend().clock;
        if clock != 0 {
            // Else hyper writes the header.
            response = response.header("date", http_date(now() + clock));
        }
        response.body(reply.to_string().into()).unwrap()
    }

    fn reply(&self, head: &http::request::Parts, path: &str, body: &[u8]) -> (StatusCode, serde_json::Value) {
        let bad = |why: &str| (StatusCode::BAD_REQUEST, serde_json::json!({"error": why, "code": "test.bad"}));
        let bends = self.bend();
        let hub_now = now() + bends.clock;
        if bends.away {
            return (StatusCode::SERVICE_UNAVAILABLE, serde_json::Value::Null);
        }
        if path == "/keys.json?v=1" {
            let keys = Jwks { keys: vec![self.key.public().published_jwk()] };
            return (StatusCode::OK, serde_json::to_value(keys).unwrap());
        }
        if head.headers.get("accept-phlix-protocol").is_none_or(|v| v != "v1") {
            return bad("protocol");
        }
        if (&head.method, path) == (&Method::POST, "/api/v1/server-claims/new") {
            let claim: serde_json::Value = serde_json::from_slice(body).unwrap();
            let jwk: Jwk = serde_json::from_value(claim["publicKeysJwk"].clone()).unwrap();
            let key = jwk.public_key().unwrap();
            let time = claim["proof"]["time"].as_i64().unwrap();
            let signature = b64::decode(claim["proof"]["signature"].as_str().unwrap()).unwrap();
            let origin = self.origin.lock().unwrap().clone();
            if (time - hub_now).abs() > 300 {
                return bad("stale");
            }
            if !key.verifies(&claim_input(&origin, time), &signature) || claim["protocolVersion"] != "v1" {
                return bad("proof");
            }
            *self.agent_key.lock().unwrap() = Some(key);
            return (
                StatusCode::OK,
                serde_json::json!({
                    "claimCode": "ABCD-EFGH", "expiresIn": bends.claim_expires_in, "claimId": self.claim,
                    "hubBaseUrl": "https://public.example",
                }),
            );
        }
        if path == format!("/api/v1/server-claims/{}", self.claim) {
            return (
                StatusCode::OK,
                match (bends.claimed, bends.claim_expires_in) {
                    (false, 0) => serde_json::json!({"status": "expired"}),
                    (false, _) => serde_json::json!({"status": "pending"}),
                    (true, _) => serde_json::json!({
                        "status": "claimed", "enrollment_jwt": self.enrollment(&bends, hub_now),
                        "hub_jwks_url": "https://public.example/keys.json?v=1", "server_id": self.server,
                        "owner_name": "ada",
                    }),
                },
            );
        }
        let Some(rest) = path.strip_prefix(&format!("/api/v1/servers/{}/", self.server)) else {
            return (StatusCode::NOT_FOUND, serde_json::Value::Null);
        };
        if let Some((status, code)) = bends.refuse {
            return (status, serde_json::json!({"error": "no", "code": code}));
        }
        if let Err(why) = self.check_proof(head, path, body, hub_now) {
            return (StatusCode::UNAUTHORIZED, serde_json::json!({"error": why, "code": "auth.invalid_proof"}));
        }
        let reply = match rest {
            "tunnel-ticket" => serde_json::json!({
                "ticket": self.tunnel_ticket(&bends, hub_now),
                "edges": token::sign(&EdgeList {
                    iss: token::ISSUER.into(), aud: "server".into(), iat: hub_now, exp: hub_now + 86_400,
                    edges: bends.edges.clone(),
                }, &bends.signer),
            }),
            "heartbeat" => {
                let beat: serde_json::Value = serde_json::from_slice(body).unwrap();
                let whole = beat["serverId"] == self.server.to_string()
                    && beat["uptimeSeconds"].is_u64()
                    && beat["activeSessions"].is_u64()
                    && beat["timestamp"].is_i64();
                if !whole {
                    return bad("heartbeat");
                }
                serde_json::json!({"status": "ok"})
            }
            "renew" => {
                serde_json::json!({"enrollment_jwt": self.enrollment(&bends, hub_now), "expires_in": 604_800})
            }
            _ => return (StatusCode::NOT_FOUND, serde_json::Value::Null),
        };
        (StatusCode::OK, reply)
    }

    fn check_proof(&self, head: &http::request::Parts, path: &str, body: &[u8], now: i64) -> Result<(), &'static str> {
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).ok_or("missing");
        let bearer = text("authorization")?.strip_prefix("Bearer ").ok_or("bearer")?;
        let keys = Jwks { keys: vec![self.key.public().jwk()] }.key_set();
        let enrollment: Enrollment = token::verify(bearer, &keys, now).map_err(|_| "enrollment")?;
        let key = enrollment.cnf.ok_or("cnf")?.jwk;
        let proof: RequestProof = token::verify_self(text("x-phlix-proof")?, &key, now).map_err(|_| "proof")?;
        let fits =
            proof.htm == head.method.as_str() && proof.htu == path && proof.bh == b64::encode(Sha256::digest(body));
        if fits { Ok(()) } else { Err("proof of another call") }
    }

    fn enrollment(&self, bends: &Bends, now: i64) -> String {
        let claims = Enrollment {
            iss: token::ISSUER.into(),
            sub: self.server,
            aud: "server".into(),
            iat: now,
            exp: now + bends.enrollment_life,
            kid: self.key.kid(),
            hub_base_url: self.url.clone(),
            server_id: self.server,
            cnf: Some(Cnf { jwk: self.agent_key.lock().unwrap().unwrap() }),
            generation: Some(1),
        };
        token::sign(&claims, &self.key)
    }

    fn tunnel_ticket(&self, bends: &Bends, now: i64) -> String {
        let server = bends.ticket_server.unwrap_or(self.server);
        let claims = TunnelTicket {
            iss: token::ISSUER.into(),
            sub: server,
            aud: "relay-edge".into(),
            iat: now,
            exp: now + 86_400,
            jti: TokenId::new(random::uuid()),
            server_id: server,
            cnf: Cnf { jwk: self.agent_key.lock().unwrap().unwrap() },
            generation: 1,
            names: bends.names.clone(),
            limits: Limits { streams: 100, header_bytes: 65_536 },
            rev: 1,
        };
        token::sign(&claims, &bends.signer)
    }
}

pub(crate) fn viewer_claims(server: ServerId, name: &str, now: i64) -> ViewerTicket {
    ViewerTicket {
        iss: token::ISSUER.into(),
        sub: UserId::new(random::uuid()),
        aud: "relay-edge".into(),
        iat: now,
        exp: now + 600,
        jti: TokenId::new(random::uuid()),
        sid: SessionId::new(random::uuid()),
        server_id: server,
        share_id: None,
        libs: Libraries::All,
        perm: Permission::ReadWrite,
        scope: Scope::Name,
        host: Some(host(name)),
        edge: None,
        usage: None,
        rate: 0,
        streams: 0,
        rev: 1,
    }
}

/// IMF-fixdate, made by another way than the one that reads it.
fn http_date(time: i64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{time}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
