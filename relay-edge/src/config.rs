//! What an edge is told before it starts. Nothing here is read from environment or files: `phlix` does that.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::EdgeId;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::uplink::EdgeRole;
use rustls::server::ResolvesServerCert;

/// An edge's settings.
#[derive(Clone)]
pub struct Config {
    /// Who this edge is. Made once and kept.
    pub id: EdgeId,
    /// The edge's own key: signs challenges to agents and requests to the control plane.
    pub key: SigningKey,
    /// Whether it carries the hub's own domain.
    pub role: EdgeRole,
    /// Where it stands, for people and for agents that choose.
    pub region: String,
    /// Version of the program, as the console shows it.
    pub version: String,
    /// The control plane, `http://127.0.0.1:PORT`.
    pub control_plane: Uri,
    /// One-time right to register, for an edge that is not known yet.
    pub join_token: Option<String>,

    /// Names that agents dial this edge by.
    pub names: Vec<String>,
    /// Addresses to dial, best first.
    pub addresses: Vec<String>,
    /// The hub's public URL, `https://hub.example` or `http://localhost:8800`. `None`: `http://localhost` with the bound
    /// plain port.
    pub hub_url: Option<Uri>,
    /// Hosts of the hub's own domain, beside the public URL's, the public domain's and `localhost`.
    pub hub_hosts: Vec<Hostname>,
    /// Servers' names are one label below it.
    pub public_domain: Hostname,
    /// Port in the URLs of names; 0: the bound TLS port.
    pub names_port: u16,
    /// Certificates, by SNI.
    pub server_certs: Arc<dyn ResolvesServerCert>,
    /// SHA-256 of the TLS key's SubjectPublicKeyInfo, base64url, where there is no public certificate.
    pub spki: Option<String>,
    /// Who may say for whom it speaks (`X-Forwarded-For`, `-Proto`). Empty: nobody.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether agents reach this edge by a proxy that terminates TLS and speaks plain HTTP to it; `trusted_proxies` names
    /// it. The hub's list says so to agents, who then prove themselves without a binding to their TLS connection.
    pub behind_proxy: bool,
    /// Whether the API answers bearers over plain HTTP from anywhere (existing media servers post there).
    pub plain_http_api: bool,

    /// Registries of the same process that the metrics port shows beside the edge's own (in `serve`: the control plane's).
    pub more_metrics: Vec<prometheus::Registry>,

    /// How much at once.
    pub limits: Limits,
    /// How long.
    pub timeouts: Timeouts,
    /// QUIC's windows.
    pub windows: Windows,
    /// Existing media servers, who speak the legacy wire.
    pub legacy: Legacy,
    /// What viewers get of them.
    pub proxy: Proxy,
}

impl Config {
    /// An edge with the defaults of everything that has one.
    pub fn new(
        id: EdgeId,
        key: SigningKey,
        role: EdgeRole,
        control_plane: Uri,
        public_domain: Hostname,
        server_certs: Arc<dyn ResolvesServerCert>,
    ) -> Self {
        Self {
            id,
            key,
            role,
            region: "home".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            control_plane,
            join_token: None,
            names: vec![public_domain.to_string()],
            addresses: Vec::new(),
            hub_url: None,
            hub_hosts: Vec::new(),
            public_domain,
            names_port: 0,
            server_certs,
            spki: None,
            trusted_proxies: Vec::new(),
            behind_proxy: false,
            plain_http_api: true,
            more_metrics: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            windows: Windows::default(),
            legacy: Legacy::default(),
            proxy: Proxy::default(),
        }
    }
}

/// The sockets that an edge serves, bound by the program before anything starts: it must know a port that the kernel picked
/// before it can name the hub's URL. Given to `Edge::start` and `spawn_thread` beside the
/// [`Config`]. All are nonblocking.
#[derive(Debug)]
pub struct Sockets {
    /// Plain HTTP for the hub's own domain; `None`: no such port.
    pub http: Option<std::net::TcpListener>,
    /// TLS for viewers.
    pub tls: std::net::TcpListener,
    /// The same port number on UDP, for agents.
    pub quic: std::net::UdpSocket,
    /// Metrics and health, on loopback; `None`: no such port.
    pub metrics: Option<std::net::TcpListener>,
    /// Tunnels of existing media servers (core edges alone); `None`: no such port.
    pub relay_server: Option<std::net::TcpListener>,
    /// Raw clients of existing media servers (core edges alone); `None`: no such port.
    pub relay_client: Option<std::net::TcpListener>,
}

/// How much at once. Everything that a stranger can ask for has a number here.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Viewers' connections in all.
    pub connections: usize,
    /// Viewers' connections from one address (IPv6: one /64).
    pub connections_per_address: usize,
    /// Requests at once in one HTTP/2 connection.
    pub h2_streams: u32,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Fields of a request's head.
    pub head_fields: usize,
    /// Bytes of path and query.
    pub path_bytes: usize,
    /// Bytes of a request's body per second that the origin waits for it, at least.
    pub body_rate: usize,
    /// Tunnels in all.
    pub tunnels: usize,
    /// QUIC handshakes and proofs under way, from which on addresses must be confirmed (Retry).
    pub unproven_before_retry: usize,
    /// QUIC handshakes and proofs under way, from which on new ones are refused.
    pub unproven: usize,
    /// The same from one address.
    pub unproven_per_address: usize,
    /// Idle connections to origins kept per tunnel.
    pub idle_legs: usize,
    /// Credentials that turned out wrong, per address and minute, before the control plane is asked no more.
    pub misses_per_minute: u32,
    /// Entries of each cache.
    pub cache_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 256,
            h2_streams: 100,
            head_bytes: 64 * 1024,
            head_fields: 100,
            path_bytes: 16 * 1024,
            // A modem's; whoever sends less holds a place at the origin for nothing.
            body_rate: 1024,
            tunnels: 10_000,
            unproven_before_retry: 64,
            unproven: 512,
            unproven_per_address: 32,
            idle_legs: 32,
            misses_per_minute: 30,
            cache_entries: 10_000,
        }
    }
}

/// How long.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// TLS handshake.
    pub handshake: Duration,
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// A connection between two requests.
    pub keep_alive: Duration,
    /// From the request's last byte to the answer's first.
    pub first_byte: Duration,
    /// Nothing from origin or for it, while a viewer waits.
    pub origin_silence: Duration,
    /// Nothing of a request's body, while the origin waits.
    pub request_body: Duration,
    /// Over how much of such waiting `Limits::body_rate` is looked at.
    pub body_rate: Duration,
    /// A viewer that doesn't read.
    pub viewer_stall: Duration,
    /// How long the origin may think about `Expect: 100-continue`.
    pub expect_continue: Duration,
    /// Waiting for the directory or for the bulletin to catch up.
    pub uplink: Duration,
    /// How long a refused credential is remembered.
    pub negative: Duration,
    /// From `hello` to `welcome`.
    pub hello: Duration,
    /// A tunnel whose bytes nobody acknowledges gets no new streams.
    pub path_stalled: Duration,
    /// A tunnel whose bytes nobody acknowledges is closed.
    pub path_dead: Duration,
    /// How long another tunnel is waited for when one dies under a running answer, from its death.
    pub resume: Duration,
    /// The same for a request that has no answer yet, at most `resume`.
    pub ask_again: Duration,
    /// An idle connection to an origin.
    pub idle_leg: Duration,
    /// Between two presence reports, at most.
    pub presence: Duration,
    /// Running transfers after `shutdown` was asked for.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            // Browsers keep connections for minutes; 60 s spares most pages a second handshake.
            keep_alive: Duration::from_secs(60),
            first_byte: Duration::from_secs(60),
            origin_silence: Duration::from_secs(60),
            request_body: Duration::from_secs(60),
            body_rate: Duration::from_secs(30),
            // A paused player holds its connection without reading.
            viewer_stall: Duration::from_secs(600),
            expect_continue: Duration::from_secs(1),
            uplink: Duration::from_secs(2),
            negative: Duration::from_secs(30),
            hello: Duration::from_secs(10),
            path_stalled: Duration::from_secs(2),
            path_dead: Duration::from_secs(10),
            // An agent dials again within a second of hearing of the death; a player's buffer bridges 10 s.
            resume: Duration::from_secs(10),
            // Players give up on a segment's first byte after 10 s (hls.js), and a dead tunnel is noticed within 3.5 s:
            // the sum stays below. An agent that is started again, or was cut off for 5 s, is back in time; and who asks a
            // moment later is told at once that the server is offline.
            ask_again: Duration::from_secs(5),
            idle_leg: Duration::from_secs(10),
            // The lease ends after 30 s of silence.
            presence: Duration::from_secs(8),
            drain: Duration::from_secs(15),
        }
    }
}

/// QUIC's windows, in bytes (native-tunnel s.1).
#[derive(Debug, Clone)]
pub struct Windows {
    /// What one stream may have in flight towards us, and what a viewer who doesn't read holds: with the buffers between
    /// stream and viewer, below 2 MiB. Twice the bandwidth-delay product of 100 Mbit/s at 50 ms (relay-design s.3).
    pub stream_receive: u32,
    /// What a connection may have in flight towards us before it has proved who it is.
    pub receive_unproven: u32,
    /// The same after the proof. Held by viewers who don't read, one stream's window each: enough for about 150 of them
    /// before the longest unread are reset.
    pub receive: u32,
    /// What a connection may have in flight from us.
    pub send: u64,
    /// Kernel buffers of the UDP socket.
    pub socket: usize,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            stream_receive: 1280 << 10,
            receive_unproven: 64 << 10,
            receive: 256 << 20,
            send: 2 << 20,
            socket: 4 << 20,
        }
    }
}

/// Existing media servers, over the legacy wire.
#[derive(Clone)]
pub struct Legacy {
    /// Whether their port, and that of raw clients, refuses whoever comes without TLS.
    pub tls_only: bool,
    /// Certificates of these ports; `None`: those of the TLS port.
    pub certs: Option<Arc<dyn ResolvesServerCert>>,
    /// Connections per address and `connects_window` that have not proved to be a server's.
    pub connects: u32,
    /// See `connects`.
    pub connects_window: Duration,
    /// Raw clients' connections per address and `mounts_window`.
    pub mounts: u32,
    /// See `mounts`.
    pub mounts_window: Duration,
    /// How long the old tunnel of a server that came again may finish what it carries; zero: not at all.
    pub drain_grace: Duration,
    /// Between two HEARTBEATs to a server.
    pub heartbeat: Duration,
    /// A tunnel without a byte from its server is closed.
    pub silence: Duration,
    /// A server that owes us nothing is sent a WebSocket ping after so long, so that TCP notices when it is gone.
    pub ping: Duration,
    /// How long bytes may stay unacknowledged before the connection is given up.
    pub unacknowledged: Duration,
    /// A raw channel without a byte either way: the wire does not say when one ended.
    pub idle_channel: Duration,
    /// Bytes of an answer that wait for its viewer.
    pub stream_queue: usize,
    /// The same of all answers of a tunnel.
    pub tunnel_queue: usize,
    /// How long one viewer who does not read may hold up the others of its tunnel.
    pub pause: Duration,
    /// Requests under way in one tunnel.
    pub requests: usize,
    /// Bytes of a request's body: what existing servers put together.
    pub request_body: u64,
}

impl Default for Legacy {
    fn default() -> Self {
        Self {
            tls_only: false,
            certs: None,
            connects: 10,
            connects_window: Duration::from_secs(60),
            //= legacy-relay-wire s.3.2
            mounts: 30,
            mounts_window: Duration::from_secs(60),
            drain_grace: Duration::from_secs(5),
            heartbeat: Duration::from_secs(30),
            silence: Duration::from_secs(90),
            // With `unacknowledged`: a server that vanished is noticed within 15 s.
            ping: Duration::from_secs(5),
            unacknowledged: Duration::from_secs(10),
            idle_channel: Duration::from_secs(300),
            // More would not help a viewer that is slower than the server's line.
            stream_queue: 256 * 1024,
            tunnel_queue: 16 * 1024 * 1024,
            pause: Duration::from_secs(1),
            // A server puts 128 chunked requests together at once (legacy-relay-wire s.2.2).
            requests: 128,
            request_body: 25 * 1024 * 1024,
        }
    }
}

/// What viewers get of existing media servers, on the hub's proxy path and at names (legacy-relay-wire s.3.3).
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Requests of one user in one `window`, media and artwork apart; 0: no limit.
    pub requests: u32,
    /// See `requests`.
    pub window: Duration,
    /// To an answer's first byte; afterwards, nothing from the server while its viewer waits.
    pub silence: Duration,
    /// The same for playlists and segments, which the server may have to encode first.
    pub encoding: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            requests: 600,
            window: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            encoding: Duration::from_secs(60),
        }
    }
}
