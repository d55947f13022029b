//! The road of a request, phase by phase: resolve, admit, locate, carry, account.
//!
//! `Road::travel` is the road itself; each phase has its file, in that order. What they share (heads, cookies, paths,
//! answers of our own, what is running) stands beside them.

pub(crate) mod account;
pub(crate) mod admit;
pub(crate) mod caller;
mod carry;
mod cookies;
mod headers;
mod hub;
mod linger;
pub(crate) mod live;
mod locate;
pub(crate) mod mount;
mod pace;
mod paced;
pub(crate) mod paths;
pub(crate) mod refusal;
mod relay;
pub(crate) mod resolve;
mod resume;
mod sign_in;
pub(crate) mod splice;
mod upgrade;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ALT_SVC, COOKIE, HOST};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use phlix_protocol::hostname::Hostname;
use phlix_protocol::token::{Access, Tls};
use phlix_protocol::uplink::{EdgeRole, Route, ServerKind};

use self::account::Account;
use self::admit::Tickets;
use self::caller::{Caller, Plain, caller, over_plain_http};
use self::hub::Cookies;
use self::live::{Full, Live};
use self::pace::Tempo;
use self::refusal::{Refusal, hub_away, unknown_host};
use self::relay::Allowance;
use self::resolve::{Asked, Door, Hosts, resolve};
use self::splice::Splice;
use self::upgrade::Way;
use crate::body::{Body, ViewerBody};
use crate::clock;
use crate::config::Config;
use crate::limits::Misses;
use crate::metrics::{Metrics, Room};
use crate::tunnels::activity::Activity;
use crate::tunnels::native::Tunnels;
use crate::uplink::Uplink;

/// All that a request meets.
pub(crate) struct Road {
    pub(crate) config: Arc<Config>,
    hosts: Hosts,
    /// The hub's origin, without a slash at its end.
    hub_origin: String,
    names_port: u16,
    tls_port: u16,
    /// Where HTTP/3 is, for viewers who came over TCP.
    alt_svc: Option<HeaderValue>,
    uplink: Arc<Uplink>,
    tunnels: Arc<Tunnels>,
    metrics: Arc<Metrics>,
    pub(crate) live: Arc<Live>,
    tickets: Tickets,
    misses: Misses,
    /// Requests to existing media servers.
    allowance: Allowance,
    resumes: Arc<resume::Means>,
}

/// A visitor's connection.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// The other end of the socket: a viewer, or a proxy in front of us.
    pub(crate) peer: IpAddr,
    pub(crate) door: Door,
    pub(crate) protocol: &'static str,
    pub(crate) number: u64,
}

/// Addresses as they were bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) http: Option<u16>,
    pub(crate) tls: u16,
}

impl Road {
    pub(crate) fn new(
        config: &Arc<Config>,
        ports: Ports,
        uplink: &Arc<Uplink>,
        tunnels: &Arc<Tunnels>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let hub_origin = match &config.hub_url {
            Some(url) => url.to_string().trim_end_matches('/').to_owned(),
            None => format!("http://localhost:{}", ports.http.unwrap_or(80)),
        };
        let of_the_url = config.hub_url.as_ref().and_then(|url| url.host()).and_then(|host| host.parse().ok());
        let mut hub: Vec<Hostname> = config.hub_hosts.clone();
        hub.extend(of_the_url);
        hub.push(config.public_domain.clone());
        hub.extend("localhost".parse().ok());
        let names_port = if config.names_port == 0 { ports.tls } else { config.names_port };
        Arc::new(Self {
            hosts: Hosts { hub, public_domain: config.public_domain.clone() },
            hub_origin,
            names_port,
            tls_port: ports.tls,
            alt_svc: (!config.behind_proxy).then(|| h3_at(names_port)).flatten(),
            uplink: Arc::clone(uplink),
            tunnels: Arc::clone(tunnels),
            metrics: Arc::clone(metrics),
            live: Live::new(Arc::clone(metrics)),
            tickets: Tickets::new(config.limits.cache_entries, config.timeouts.uplink),
            misses: Misses::new(config.limits.misses_per_minute),
            allowance: Allowance::new(config.proxy.requests, config.proxy.window),
            resumes: Arc::new(resume::Means {
                tunnels: Arc::clone(tunnels),
                uplink: Arc::clone(uplink),
                metrics: Arc::clone(metrics),
                ask_again: config.timeouts.ask_again.min(config.timeouts.resume),
                resume: config.timeouts.resume,
            }),
            config: Arc::clone(config),
        })
    }

    /// Whether requests can be judged.
    pub(crate) fn is_ready(&self) -> bool {
        self.uplink.ready()
    }

    /// Whether the hub has admitted this edge.
    pub(crate) fn is_approved(&self) -> bool {
        self.uplink.approved()
    }

    /// Revision of the bulletin that was reached.
    pub(crate) fn revision(&self) -> u64 {
        self.uplink.bulletin.world().revision.unwrap_or_default()
    }

    /// One request, to its answer. `over` is dropped when the answer's last byte is out, or nobody wants it any more.
    pub(crate) async fn travel(
        &self,
        request: Request<ViewerBody>,
        visit: &Visit,
        over: Box<dyn Send + Sync>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let to_a_person = admit::is_navigation(&head);
        let mut account = Account::open(&self.metrics, &head.method, visit.protocol, Instant::now(), Some(over));
        let mut response = match self.walk(head, body, visit, &mut account).await {
            Ok(response) => response,
            Err(refusal) => {
                account.refused(refusal.code);
                refusal.into_response(to_a_person)
            }
        };
        if let Some(mut splice) = Splice::take(&mut response) {
            account.switched(Instant::now());
            splice.count_by(account);
            splice.put(&mut response);
            return response;
        }
        account.answer(response, Instant::now())
    }

    /// Says to a viewer over TCP's TLS that the same is there over HTTP/3 (RFC 7838). A host that is none of ours is not
    /// spoken for.
    pub(crate) fn offer_h3(&self, visit: &Visit, answer: &mut Response<Body>) {
        if let (Some(alt_svc), Door::Tls(_)) = (&self.alt_svc, &visit.door)
            && answer.status() != StatusCode::MISDIRECTED_REQUEST
            && answer.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            answer.headers_mut().insert(ALT_SVC, alt_svc.clone());
        }
    }

    async fn walk(
        &self,
        head: Parts,
        body: ViewerBody,
        visit: &Visit,
        account: &mut Account,
    ) -> Result<Response<Body>, Refusal> {
        let tls = visit.door != Door::Plain;
        let from = caller(&head.headers, visit.peer, tls, &self.config.trusted_proxies);
        let proxied = !tls && from.https;
        let asked =
            resolve(&head, if proxied { &Door::Proxied } else { &visit.door }, &self.hosts, &self.config.limits)?;
        match asked {
            Asked::Hub => {
                account.set_room(Room::Hub);
                self.to_hub(head, body, visit, &from, account).await
            }
            Asked::Proxy(asked) => {
                account.set_room(Room::Proxy);
                if self.config.role != EdgeRole::Core {
                    return Err(unknown_host());
                }
                let mut head = head;
                if self.admit_plain(&head, visit, &from)? == Cookies::Stay {
                    head.headers.remove(COOKIE);
                }
                relay::at_proxy(self, head, body, asked, &from, account).await
            }
            Asked::PlainName(host) => {
                account.set_room(Room::Name);
                let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
                let to = format!("https://{}{path}", authority(&host, self.names_port));
                Err(Refusal::redirect(StatusCode::PERMANENT_REDIRECT, &to))
            }
            Asked::SignIn(host, step) => {
                account.set_room(Room::Name);
                sign_in::sign_in(self, &head, host, step).await
            }
            Asked::Name(host) => {
                account.set_room(Room::Name);
                self.to_name(head, body, (host, None), visit, &from, account).await
            }
            Asked::Socket(host, way) => {
                account.set_room(Room::Name);
                self.to_name(head, body, (host, Some(way)), visit, &from, account).await
            }
        }
    }

    /// A server's name: admit, locate, carry.
    async fn to_name(
        &self,
        head: Parts,
        body: ViewerBody,
        (host, way): (Hostname, Option<Way>),
        visit: &Visit,
        from: &Caller,
        account: &mut Account,
    ) -> Result<Response<Body>, Refusal> {
        let route = self.route(&host).await?;
        account.set_server(route.server_id);
        if route.kind == ServerKind::Phlix {
            return relay::at_name(self, head, body, (host, way), &route, from, account).await;
        }
        let registry = &self.tunnels.registry;

        // Open needs two words, the directory's and the tunnel ticket's; a legacy server has neither (trust s.4.1).
        let open = is_open(&route) && locate::agent_agrees_open(registry, route.server_id, &host);
        let viewer = if open {
            None
        } else {
            Some(admit::at_name(&self.tickets, &self.uplink, self.config.id, &head, &host, &route).await?)
        };
        if route.guard_local_paths && !head.method.is_safe() && paths::is_local_admin(head.uri.path()) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "path.guarded",
                "This path is for somebody at the server itself. Its owner can change that at the hub.",
            ));
        }
        let renewing = viewer.as_ref().filter(|viewer| admit::wants_renewal(viewer, clock::unix_now()));
        if let Some(viewer) = renewing {
            self.uplink.directory.renew(&viewer.ticket);
        }

        let tunnel = locate::locate(registry, route.server_id)?;
        if viewer.is_none() && !tunnel.says_open(&host) {
            // A tunnel came up since we asked, and its ticket says that the name is protected.
            return Err(locate::offline());
        }

        let activity = Arc::new(Activity::new(Instant::now()));
        let right = viewer.as_ref().map(|viewer| Arc::clone(&viewer.claims));
        let listed = self
            .live
            .list(route.server_id, Some(host.clone()), right, from.address, tunnel.streams(), Arc::clone(&activity))
            .map_err(too_many)?;
        let authority = authority(&host, self.names_port);
        let errand = carry::Errand {
            server: route.server_id,
            host,
            viewer: viewer.as_ref(),
            connection: visit.number,
            said: headers::Viewer { address: from.address, proto: "https", host: &authority },
            expect_continue: self.config.timeouts.expect_continue,
            tempo: Tempo::new(self.config.limits.body_rate, self.config.timeouts.body_rate),
            taken: account.taken(),
            resumes: &self.resumes,
        };
        let mut response = match way {
            None => carry::carry(&tunnel, head, body, errand, listed, activity).await?,
            Some(way) => upgrade::upgrade(&tunnel, head, body, way, errand, listed, activity).await?,
        };
        if let Some(viewer) = renewing
            && let Some(reply) = self.uplink.directory.renewed(&viewer.ticket)
            && let Some(cookie) = cookies::set(cookies::VIEWER, &reply.ticket, reply.expires_at - clock::unix_now())
        {
            response.headers_mut().append(http::header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Whose name it is. While the control plane is away, a name that was never asked for is known by its tunnel's ticket,
    /// and taken for protected.
    async fn route(&self, host: &Hostname) -> Result<Arc<Route>, Refusal> {
        match self.uplink.directory.route(host).await {
            Ok(route) => route.ok_or_else(unknown_host),
            Err(_) => {
                let server_id = self.tunnels.registry.named(host).ok_or_else(hub_away)?;
                Ok(Arc::new(Route {
                    host: host.clone(),
                    server_id,
                    kind: ServerKind::Generic,
                    access: Access::Protected,
                    tls: Tls::Terminated,
                    guard_local_paths: true,
                    names_port: self.names_port,
                    rev: 0,
                }))
            }
        }
    }

    /// The hub's own domain.
    async fn to_hub(
        &self,
        head: Parts,
        body: ViewerBody,
        visit: &Visit,
        from: &Caller,
        account: &Account,
    ) -> Result<Response<Body>, Refusal> {
        if self.config.role != EdgeRole::Core {
            return Err(unknown_host());
        }
        // Between edges and control plane, nobody else's (by whatever spelling).
        if paths::segments(head.uri.path()).first().is_some_and(|first| first == "edge") {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "There is no such page."));
        }
        let cookies = self.admit_plain(&head, visit, from)?;
        let host = host_text(&head);
        let viewer =
            headers::Viewer { address: from.address, proto: if from.https { "https" } else { "http" }, host: &host };
        hub::pass_on(&self.uplink, head, body, &viewer, cookies, account.taken(), self.config.timeouts.first_byte).await
    }

    /// Plain HTTP has rules of its own; TLS has none here.
    fn admit_plain(&self, head: &Parts, visit: &Visit, from: &Caller) -> Result<Cookies, Refusal> {
        if visit.door != Door::Plain {
            return Ok(Cookies::Pass);
        }
        match over_plain_http(head, from, self.config.plain_http_api) {
            Plain::Pass => Ok(Cookies::Pass),
            Plain::WithoutCookies => Ok(Cookies::Stay),
            Plain::Refused => {
                Err(Refusal::new(StatusCode::FORBIDDEN, "http.plain", "This is served over TLS only. Use https."))
            }
            Plain::Redirect => {
                let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
                let to = if self.hub_origin.starts_with("https://") {
                    format!("{}{path}", self.hub_origin)
                } else {
                    let host = Hostname::from_authority(&host_text(head)).map_err(|_| unknown_host())?;
                    format!("https://{}{path}", authority(&host, self.tls_port))
                };
                Err(Refusal::redirect(StatusCode::PERMANENT_REDIRECT, &to))
            }
        }
    }
}

/// The directory's word that a name is open; the tunnel ticket's is the other one.
fn is_open(route: &Route) -> bool {
    route.access == Access::Open && route.kind == ServerKind::Generic
}

/// HTTP/3 at this port of the same host, for a day.
fn h3_at(port: u16) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok()
}

fn too_many(full: Full) -> Refusal {
    let (code, message) = match full {
        Full::Ticket => ("stream.limit", "Too many streams at once for this ticket."),
        Full::Share => ("stream.share", "Too many streams at once for one viewer."),
    };
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(Duration::from_secs(1))
}

/// Host and, where it is not https's own, port.
fn authority(host: &Hostname, port: u16) -> String {
    if port == 443 { host.to_string() } else { format!("{host}:{port}") }
}

/// The host that was asked for, as it was written.
fn host_text(head: &Parts) -> String {
    let field = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    field.or_else(|| head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default().to_owned()
}
