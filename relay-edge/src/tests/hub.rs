//! A hub that says what a test tells it to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{EdgeId, ServerId, SessionId, TokenId, UserId};
use phlix_protocol::keys::{Jwks, PublicKey, SigningKey};
use phlix_protocol::token::{
    self, Access, Cnf, EdgeIdentity, Libraries, Limits, NamedHost, Permission, Scope, Tls, TunnelTicket, ViewerTicket,
};
use phlix_protocol::uplink::{
    BulletinLine, Change, EdgeRole, EdgeStatus, ExchangeReply, ExchangeRequest, NameCode, PresenceReply,
    PresenceReport, Register, Registered, RelayToken, RenewRequest, Revocation, Route, Selector, ServerKind,
    ServerState, Snapshot, TicketReply, paths,
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{clock, random};

pub(super) struct Hub {
    pub(super) address: SocketAddr,
    pub(super) key: SigningKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    status: Option<EdgeStatus>,
    edge_key: Option<PublicKey>,
    revision: u64,
    routes: HashMap<Hostname, Route>,
    listeners: Vec<mpsc::UnboundedSender<BulletinLine>>,
    changes: Vec<BulletinLine>,
    revocations: Vec<Revocation>,
    exchanges: HashMap<String, Result<ExchangeReply, StatusCode>>,
    codes: HashMap<(String, String), TicketReply>,
    renewals: HashMap<String, TicketReply>,
    /// Tickets by relay token; what is not here is 401.
    relay_tokens: HashMap<String, TicketReply>,
    online: HashMap<ServerId, bool>,
    /// How often relay tokens and servers' states were asked for.
    asked: usize,
    pub(super) presence: Vec<PresenceReport>,
    seen: Vec<http::request::Parts>,
    /// 503 to everything.
    down: bool,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let body = Full::new(Bytes::from(serde_json::to_vec(value).unwrap()));
    Response::builder().status(status).body(body.boxed_unsync()).unwrap()
}

fn refusal(status: StatusCode, code: &str) -> Answer {
    json(status, &serde_json::json!({ "error": "no", "code": code, "message": "no" }))
}

impl Hub {
    pub(super) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            key: SigningKey::from_seed(&random::bytes()),
            state: Mutex::new(State { status: Some(EdgeStatus::Approved), revision: 1, ..State::default() }),
        });
        let serving = Arc::clone(&hub);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let hub = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let hub = Arc::clone(&hub);
                        async move { Ok::<_, Infallible>(hub.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        hub
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if self.state().down {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "down");
        }
        let (head, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return refusal(StatusCode::BAD_REQUEST, "body"),
        };
        let path = head.uri.path().to_owned();
        if !path.starts_with("/edge/v1/") {
            return self.viewers_request(head, &body);
        }
        if path == paths::REGISTER {
            let register: Register = serde_json::from_slice(&body).unwrap();
            self.state().edge_key = Some(register.key);
            self.check_identity(&head, Some(&body));
            let status = self.state().status.unwrap();
            let (edge_id, fingerprint) = (register.edge_id, register.key.kid());
            return json(StatusCode::OK, &Registered { edge_id, role: EdgeRole::Core, status, fingerprint });
        }
        self.check_identity(&head, Some(&body));
        match path.as_str() {
            paths::BULLETIN => self.bulletin(head.uri.query()),
            paths::PRESENCE => {
                let report: PresenceReport = serde_json::from_slice(&body).unwrap();
                self.state().presence.push(report);
                json(StatusCode::OK, &PresenceReply { full: false })
            }
            paths::VIEWER_TICKETS => {
                let request: ExchangeRequest = serde_json::from_slice(&body).unwrap();
                let (phlix_protocol::uplink::Credential::Bearer(secret)
                | phlix_protocol::uplink::Credential::Session(secret)) = request.credential;
                match self.state().exchanges.get(&secret) {
                    Some(Ok(reply)) => json(StatusCode::OK, reply),
                    Some(Err(status)) => refusal(*status, "as.told"),
                    None => refusal(StatusCode::UNAUTHORIZED, "auth.required"),
                }
            }
            paths::NAME_CODES => {
                let code: NameCode = serde_json::from_slice(&body).unwrap();
                let challenge = phlix_protocol::b64::encode(Sha256::digest(code.verifier.as_bytes()));
                match self.state().codes.remove(&(code.code, challenge)) {
                    Some(reply) => json(StatusCode::OK, &reply),
                    None => refusal(StatusCode::UNAUTHORIZED, "code.unknown"),
                }
            }
            paths::RENEW_VIEWER_TICKET => {
                let request: RenewRequest = serde_json::from_slice(&body).unwrap();
                match self.state().renewals.get(&request.ticket) {
                    Some(reply) => json(StatusCode::OK, reply),
                    None => refusal(StatusCode::FORBIDDEN, "gone"),
                }
            }
            paths::RELAY_TOKENS => {
                let shown: RelayToken = serde_json::from_slice(&body).unwrap();
                let mut state = self.state();
                state.asked += 1;
                match state.relay_tokens.get(&shown.token) {
                    Some(reply) => json(StatusCode::OK, reply),
                    None => refusal(StatusCode::UNAUTHORIZED, "auth.invalid_token"),
                }
            }
            _ if path.starts_with(paths::SERVERS) => {
                let id = path.split('/').nth(4).unwrap_or_default().parse().unwrap();
                let mut state = self.state();
                state.asked += 1;
                match state.online.get(&id) {
                    Some(online) => json(StatusCode::OK, &ServerState { online: *online }),
                    None => refusal(StatusCode::NOT_FOUND, "server.not_found"),
                }
            }
            _ => match path.strip_prefix("/edge/v1/hosts/").and_then(|host| host.parse::<Hostname>().ok()) {
                Some(host) => match self.state().routes.get(&host) {
                    Some(route) => json(StatusCode::OK, route),
                    None => refusal(StatusCode::NOT_FOUND, "host.unknown"),
                },
                None => refusal(StatusCode::NOT_FOUND, "path.unknown"),
            },
        }
    }

    /// What the control plane would check.
    fn check_identity(&self, head: &http::request::Parts, body: Option<&[u8]>) {
        let token = head.headers["x-phlix-edge"].to_str().unwrap();
        let key = self.state().edge_key.unwrap();
        let claims: EdgeIdentity = token::verify_self(token, &key, clock::unix_now()).unwrap();
        assert_eq!(claims.htm, head.method.as_str());
        assert_eq!(claims.htu, head.uri.path_and_query().unwrap().as_str());
        assert_eq!(claims.bh, body.map(|body| phlix_protocol::b64::encode(Sha256::digest(body))));
    }

    fn viewers_request(&self, head: http::request::Parts, body: &Bytes) -> Answer {
        self.check_identity(&head, None);
        let echo = format!("{} {} {}", head.method, head.uri, body.len());
        self.state().seen.push(head);
        Response::builder()
            .header("set-cookie", "__Host-phlix-s=session")
            .body(Full::new(Bytes::from(echo)).boxed_unsync())
            .unwrap()
    }

    fn bulletin(&self, query: Option<&str>) -> Answer {
        let since: Option<u64> = query.and_then(|query| query.strip_prefix("since=")?.parse().ok());
        let (line, lines) = mpsc::unbounded_channel();
        let mut state = self.state();
        for change in state.changes.iter().filter(|change| match (change, since) {
            (BulletinLine::Change { revision, .. }, Some(since)) => *revision > since,
            _ => false,
        }) {
            line.send(change.clone()).unwrap();
        }
        line.send(BulletinLine::Snapshot(self.snapshot(&state))).unwrap();
        state.listeners.push(line);
        let lines = futures_util::stream::unfold(lines, |mut lines| async move {
            let mut line = serde_json::to_vec(&lines.recv().await?).unwrap();
            line.push(b'\n');
            Some((Ok(Frame::data(Bytes::from(line))), lines))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }

    fn snapshot(&self, state: &State) -> Snapshot {
        Snapshot {
            revision: state.revision,
            now: clock::unix_now(),
            jwks: Jwks { keys: vec![self.key.public().published_jwk()] },
            edges: Vec::new(),
            revocations: state.revocations.clone(),
            generations: Vec::new(),
            tls_only: Vec::new(),
        }
    }

    /// Announces a change.
    pub(super) fn announce(&self, change: Change) {
        let mut state = self.state();
        state.revision += 1;
        let line = BulletinLine::Change { revision: state.revision, change };
        state.changes.push(line.clone());
        state.listeners.retain(|listener| listener.send(line.clone()).is_ok());
    }

    pub(super) fn revoke(&self, selector: Selector) {
        let now = clock::unix_now();
        let revocation = Revocation { selector, issued_until: now, keep_until: now + 86_400 };
        self.state().revocations.push(revocation);
        self.announce(Change::Revoked { revocation });
    }

    /// Breaks every bulletin stream off.
    pub(super) fn hang_up(&self) {
        self.state().listeners.clear();
    }

    pub(super) fn set_down(&self, down: bool) {
        self.state().down = down;
        self.hang_up();
    }

    pub(super) fn set_status(&self, status: EdgeStatus) {
        self.state().status = Some(status);
    }

    pub(super) fn route(&self, host: &str, server_id: ServerId, access: Access) {
        self.route_to(host, server_id, ServerKind::Generic, access);
    }

    pub(super) fn route_to(&self, host: &str, server_id: ServerId, kind: ServerKind, access: Access) {
        let host: Hostname = host.parse().unwrap();
        let mut state = self.state();
        let route = Route {
            host: host.clone(),
            server_id,
            kind,
            access,
            tls: Tls::Terminated,
            guard_local_paths: true,
            names_port: 443,
            rev: state.revision + 1,
        };
        let known = state.routes.insert(host.clone(), route).is_some();
        drop(state);
        if known {
            self.announce(Change::Route { server_id, hosts: vec![host] });
        }
    }

    pub(super) fn exchange(&self, secret: &str, answer: Result<ExchangeReply, StatusCode>) {
        self.state().exchanges.insert(secret.into(), answer);
    }

    /// What this secret is exchanged for.
    pub(super) fn exchanged(&self, secret: &str) -> ExchangeReply {
        self.state().exchanges[secret].clone().unwrap()
    }

    pub(super) fn code(&self, code: &str, challenge: &str, ticket: &ViewerTicket) {
        let reply = TicketReply { ticket: token::sign(ticket, &self.key), expires_at: ticket.exp };
        self.state().codes.insert((code.into(), challenge.into()), reply);
    }

    pub(super) fn renewal(&self, old: &str, ticket: &ViewerTicket) -> String {
        let fresh = token::sign(ticket, &self.key);
        let reply = TicketReply { ticket: fresh.clone(), expires_at: ticket.exp };
        self.state().renewals.insert(old.into(), reply);
        fresh
    }

    pub(super) fn relay_token(&self, token: &str, ticket: &ViewerTicket) {
        let reply = TicketReply { ticket: token::sign(ticket, &self.key), expires_at: ticket.exp };
        self.state().relay_tokens.insert(token.into(), reply);
    }

    pub(super) fn set_online(&self, server: ServerId, online: bool) {
        self.state().online.insert(server, online);
    }

    /// How often relay tokens and servers' states were asked for.
    pub(super) fn asked(&self) -> usize {
        self.state().asked
    }

    /// The last request that was passed on.
    pub(super) fn last_seen(&self) -> http::request::Parts {
        self.state().seen.last().cloned().unwrap()
    }

    pub(super) fn presence(&self) -> Vec<PresenceReport> {
        self.state().presence.clone()
    }

    pub(super) fn tunnel_ticket(
        &self,
        server_id: ServerId,
        key: &SigningKey,
        names: &[(&str, Access)],
    ) -> TunnelTicket {
        let now = clock::unix_now();
        let named = |(host, access): &(&str, Access)| NamedHost {
            host: host.parse().unwrap(),
            access: *access,
            tls: Tls::Terminated,
        };
        TunnelTicket {
            iss: token::ISSUER.into(),
            sub: server_id,
            aud: "relay-edge".into(),
            iat: now,
            exp: now + 3600,
            jti: TokenId::new(random::uuid()),
            server_id,
            cnf: Cnf { jwk: key.public() },
            generation: 1,
            names: names.iter().map(named).collect(),
            limits: Limits { streams: 64, header_bytes: 65_536 },
            rev: 1,
        }
    }

    pub(super) fn viewer_ticket(&self, server_id: ServerId, host: &str) -> ViewerTicket {
        let now = clock::unix_now();
        ViewerTicket {
            iss: token::ISSUER.into(),
            sub: UserId::new(random::uuid()),
            aud: "relay-edge".into(),
            iat: now,
            exp: now + 600,
            jti: TokenId::new(random::uuid()),
            sid: SessionId::new(random::uuid()),
            server_id,
            share_id: None,
            libs: Libraries::All,
            perm: Permission::ReadWrite,
            scope: Scope::Name,
            host: Some(host.parse().unwrap()),
            edge: None,
            usage: None,
            rate: 0,
            streams: 0,
            rev: 1,
        }
    }

    pub(super) fn sign(&self, ticket: &ViewerTicket) -> String {
        token::sign(ticket, &self.key)
    }
}

/// An edge's id that is nobody's.
pub(super) fn other_edge() -> EdgeId {
    EdgeId::new(random::uuid())
}
