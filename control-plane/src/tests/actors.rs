//! Who talks to the hub beside browsers: a native server with its key, an unmodified server, a relay edge.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::{Method, Request};
use axum::body::Body;
use phlix_protocol::b64;
use phlix_protocol::ids::{EdgeId, InstanceId, ServerId, TunnelId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native::proof::claim_input;
use phlix_protocol::token::{self, EdgeIdentity, Presence, RequestProof};
use phlix_protocol::uplink::{OpenedTunnel, PresenceReport, Register, paths};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::world::{Client, ORIGIN, Person, Reply, World};
use crate::app::{edges, maintenance};

/// The routes that speak the hub's protocol want it named.
pub(super) fn with_protocol(client: Client) -> Client {
    client.header("accept-phlix-protocol", "v1")
}

/// Each call is another one.
fn fresh_jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A media server that wants to be claimed.
#[derive(Clone)]
pub(super) struct HomeServer {
    pub(super) world: World,
    pub(super) key: SigningKey,
    pub(super) is_native: bool,
    pub(super) id: Option<ServerId>,
    pub(super) enrollment: String,
}

impl HomeServer {
    /// Our agent, which proves its key.
    pub(super) fn native(world: &World, seed: u8) -> Self {
        let key = SigningKey::from_seed(&[seed; 32]);
        Self { world: world.clone(), key, is_native: true, id: None, enrollment: String::new() }
    }

    /// An unmodified Phlix server.
    pub(super) fn legacy(world: &World, seed: u8) -> Self {
        Self { is_native: false, ..Self::native(world, seed) }
    }

    /// The body of `/new`.
    pub(super) fn application(&self) -> Value {
        let mut body = json!({
            "serverName": "Living room",
            "version": "1.4.0",
            "publicKeysJwk": self.key.public().jwk(),
            "hostnameCandidates": ["http://192.168.1.5:8096"],
            "protocolVersion": "v1",
        });
        if self.is_native {
            body["proof"] = self.proof_for(ORIGIN, self.now());
        }
        body
    }

    pub(super) fn proof_for(&self, origin: &str, time: i64) -> Value {
        json!({"time": time, "signature": b64::encode(self.key.sign(&claim_input(origin, time)))})
    }

    pub(super) fn now(&self) -> i64 {
        self.world.app().clock.now().seconds()
    }

    pub(super) async fn apply(&self) -> Reply {
        with_protocol(self.world.client()).post("/api/v1/server-claims/new", self.application()).await
    }

    pub(super) async fn poll(&self, claim_id: &str) -> Value {
        let reply = with_protocol(self.world.client()).get(&format!("/api/v1/server-claims/{claim_id}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// The whole way: asks, is claimed by `owner`, fetches its enrollment.
    pub(super) async fn claimed_by(mut self, owner: &Person) -> Self {
        let opened = self.apply().await;
        assert_eq!(opened.status, 200, "{opened:?}");
        let opened = opened.json();
        let redeemed = redeem(&self.world, owner, opened["claimCode"].as_str().unwrap()).await;
        assert_eq!(redeemed.status, 200, "{redeemed:?}");
        let claimed = self.poll(opened["claimId"].as_str().unwrap()).await;
        assert_eq!(claimed["status"], "claimed", "{claimed}");
        self.id = Some(claimed["server_id"].as_str().unwrap().parse().unwrap());
        self.enrollment = claimed["enrollment_jwt"].as_str().unwrap().to_owned();
        self
    }

    pub(super) fn id(&self) -> ServerId {
        self.id.unwrap()
    }

    /// `/api/v1/servers/{id}` and below.
    pub(super) fn path(&self, below: &str) -> String {
        format!("/api/v1/servers/{}{below}", self.id())
    }

    /// The signature over one call.
    pub(super) fn signature(&self, method: &str, target: &str, body: &[u8]) -> RequestProof {
        RequestProof {
            htm: method.to_owned(),
            htu: target.to_owned(),
            bh: b64::encode(Sha256::digest(body)),
            iat: self.now(),
            jti: fresh_jti(),
        }
    }

    /// A call of its own, signed where it is native.
    pub(super) async fn call(&self, method: Method, target: &str, body: &str) -> Reply {
        let proof = self
            .is_native
            .then(|| token::sign_self(&self.signature(method.as_str(), target, body.as_bytes()), &self.key));
        self.call_with(method, target, body, &self.enrollment, proof.as_deref()).await
    }

    /// The same with whatever it shows.
    pub(super) async fn call_with(
        &self,
        method: Method,
        target: &str,
        body: &str,
        enrollment: &str,
        proof: Option<&str>,
    ) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("content-type", "application/json")
            .header("accept-phlix-protocol", "v1")
            .header("authorization", format!("Bearer {enrollment}"));
        if let Some(proof) = proof {
            request = request.header("x-phlix-proof", proof);
        }
        self.world.client().send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(super) fn heartbeat_body(&self) -> Value {
        json!({"serverId": self.id(), "version": "1.5.0", "timestamp": 9_999_999_999_i64, "uptimeSeconds": 77,
            "activeSessions": 0, "activeTranscodes": 0, "hostnameCandidates": ["http://192.168.1.6:8096"],
            "libraries": [{"library_id": "a", "library_name": "Films"}, {"library_id": "b", "library_name": "Songs"}]})
    }

    pub(super) async fn heartbeat(&self) -> Reply {
        self.call(Method::POST, &self.path("/heartbeat"), &self.heartbeat_body().to_string()).await
    }

    /// Its word for a tunnel.
    pub(super) fn states(&self, edge: EdgeId, tunnel: TunnelId) -> Presence {
        Presence { server_id: self.id(), edge_id: edge, tunnel_id: tunnel, iat: self.now() }
    }

    /// A tunnel with that word.
    pub(super) fn opened(&self, edge: EdgeId, tunnel: TunnelId) -> OpenedTunnel {
        let statement = token::sign_self(&self.states(edge, tunnel), &self.key);
        OpenedTunnel { server_id: self.id(), tunnel_id: tunnel, statement: Some(statement), legacy: None }
    }
}

/// A person redeems a code.
pub(super) async fn redeem(world: &World, person: &Person, code: &str) -> Reply {
    with_protocol(world.client().bearer(&person.access))
        .post("/api/v1/server-claims/claim", json!({"claim_code": code}))
        .await
}

/// A relay edge with its key.
#[derive(Clone)]
pub(super) struct RelayEdge {
    pub(super) world: World,
    pub(super) id: EdgeId,
    pub(super) key: SigningKey,
    pub(super) instance: InstanceId,
}

impl RelayEdge {
    /// Nobody knows it yet.
    pub(super) fn unknown(world: &World, seed: u8) -> Self {
        let id = EdgeId::new(Uuid::from_bytes([seed; 16]));
        let instance = InstanceId::new(Uuid::from_bytes([seed; 16]));
        Self { world: world.clone(), id, key: SigningKey::from_seed(&[seed; 32]), instance }
    }

    /// The one inside `serve`.
    pub(super) async fn core(world: &World, seed: u8) -> Self {
        let edge = Self::unknown(world, seed);
        edges::approve_builtin(world.app(), edge.id, &edge.key.public()).await.unwrap();
        edge
    }

    pub(super) fn place(&self) -> Register {
        Register {
            edge_id: self.id,
            key: self.key.public(),
            region: "home".into(),
            names: vec!["localhost".into()],
            addresses: vec!["127.0.0.1".into()],
            port: 8443,
            spki: Some(b64::encode([7; 32])),
            behind_proxy: false,
            version: "0.1.0".into(),
            join_token: None,
        }
    }

    pub(super) fn identity(&self, method: &str, target: &str, body: &[u8]) -> EdgeIdentity {
        EdgeIdentity {
            sub: self.id,
            aud: EdgeIdentity::AUD.into(),
            iat: self.world.app().clock.now().seconds(),
            jti: fresh_jti(),
            htm: method.to_owned(),
            htu: target.to_owned(),
            bh: Some(b64::encode(Sha256::digest(body))),
        }
    }

    /// A request as this edge sends it, with whatever identity.
    pub(super) fn request(method: Method, target: &str, body: Vec<u8>, identity: Option<&str>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(target).header("content-type", "application/json");
        if let Some(identity) = identity {
            request = request.header("x-phlix-edge", identity);
        }
        request.body(Body::from(body)).unwrap()
    }

    pub(super) async fn ask(&self, method: Method, target: &str, body: Option<&impl Serialize>) -> Reply {
        let body = body.map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
        let identity = token::sign_self(&self.identity(method.as_str(), target, &body), &self.key);
        self.world.client().send_direct(Self::request(method, target, body, Some(&identity))).await
    }

    pub(super) async fn post(&self, target: &str, body: &impl Serialize) -> Reply {
        self.ask(Method::POST, target, Some(body)).await
    }

    pub(super) async fn get(&self, target: &str) -> Reply {
        self.ask(Method::GET, target, None::<&Value>).await
    }

    pub(super) async fn register(&self) -> Reply {
        self.post(paths::REGISTER, &self.place()).await
    }

    pub(super) async fn report(&self, full: bool, opened: Vec<OpenedTunnel>, closed: Vec<TunnelId>) -> Value {
        let report = PresenceReport { instance: self.instance, full, opened, closed };
        let reply = self.post(paths::PRESENCE, &report).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }
}

/// A tunnel's id.
pub(super) fn tunnel(number: u8) -> TunnelId {
    TunnelId::new(Uuid::from_bytes([number; 16]))
}

/// Moves the clock, and does what a running hub does every few seconds meanwhile: reads its keys again.
pub(super) async fn later(world: &World, seconds: u64) {
    world.advance(Duration::from_secs(seconds));
    maintenance::refresh_keys(world.app()).await.unwrap();
}
