//! A hub, an edge, and what they trust.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use phlix_protocol::ids::{EdgeId, ServerId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native::control::RefusedCode;
use phlix_protocol::token::{Access, ViewerTicket};
use phlix_protocol::uplink::{EdgeRole, EdgeStatus};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::agent::{Agent, Introduction, Serve};
use super::hub::Hub;
use super::origin::Origin;
use super::viewer::{Viewer, ViewerBody, nothing};
use crate::{Addresses, Config, Edge, Sockets, random};

pub(super) const NAME: &str = "ab.hub.localhost";
pub(super) const OPEN: &str = "open.hub.localhost";

/// A certificate for all names, which clients trust.
pub(super) struct Trust {
    certificate: CertificateDer<'static>,
}

impl Trust {
    fn new() -> (Self, Arc<dyn ResolvesServerCert>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["hub.localhost", "*.hub.localhost", "localhost"].map(String::from).to_vec();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().clone();
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = rustls::crypto::CryptoProvider::get_default().unwrap();
        let certified = CertifiedKey::from_der(vec![certificate.clone()], private, provider).unwrap();
        (Self { certificate }, Arc::new(SingleCertAndKey::from(certified)))
    }

    pub(super) fn client(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
    }
}

pub(super) struct World {
    pub(super) hub: Arc<Hub>,
    pub(super) trust: Trust,
    pub(super) edge: Edge,
    pub(super) at: Addresses,
    pub(super) edge_id: EdgeId,
    pub(super) edge_key: SigningKey,
    pub(super) server: ServerId,
    pub(super) server_key: SigningKey,
    pub(super) origin: Origin,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A world whose edge has other settings. The server has a protected and an open name and no tunnel yet.
    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let world = Self::admitted(EdgeStatus::Approved, change).await;
        world.until_ready().await;
        world
    }

    /// A world whose hub thinks so of its edge.
    pub(super) async fn admitted(status: EdgeStatus, change: impl FnOnce(&mut Config)) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let hub = Hub::start().await;
        hub.set_status(status);
        let (trust, certs) = Trust::new();
        let (edge_id, edge_key) = (EdgeId::new(random::uuid()), SigningKey::from_seed(&random::bytes()));
        let control_plane = format!("http://{}", hub.address).parse().unwrap();
        let domain = "hub.localhost".parse().unwrap();
        let mut config = Config::new(edge_id, edge_key.clone(), EdgeRole::Core, control_plane, domain, certs);
        config.timeouts.drain = Duration::from_secs(2);
        change(&mut config);
        let edge = Edge::start(config, sockets()).await.unwrap();
        let server = ServerId::new(random::uuid());
        hub.route(NAME, server, Access::Protected);
        hub.route(OPEN, server, Access::Open);
        Self {
            at: edge.addresses(),
            hub,
            trust,
            edge,
            edge_id,
            edge_key,
            server,
            server_key: SigningKey::from_seed(&random::bytes()),
            origin: Origin::start().await,
        }
    }

    async fn until_ready(&self) {
        until(async || {
            let ready = Request::builder().uri("/ready").header("host", "x").body(nothing()).unwrap();
            Viewer::plain(self.at.metrics.unwrap()).await.fetch(ready).await.status == 200
        })
        .await;
    }

    /// A tunnel to the world's origin.
    pub(super) async fn tunnel(&self) -> Agent {
        self.tunnel_to(Serve::Origin(self.origin.address)).await
    }

    pub(super) async fn tunnel_to(&self, serve: Serve) -> Agent {
        self.introduce(self.introduction(), serve).await.unwrap()
    }

    pub(super) fn introduction(&self) -> Introduction {
        let names = [(NAME, Access::Protected), (OPEN, Access::Open)];
        let ticket = self.hub.tunnel_ticket(self.server, &self.server_key, &names);
        Introduction::new(&self.hub, &ticket, &self.server_key)
    }

    pub(super) async fn introduce(
        &self,
        introduction: Introduction,
        serve: Serve,
    ) -> Result<Agent, Option<RefusedCode>> {
        Agent::open(self.at, self.edge_id, &self.edge_key, &self.trust, introduction, serve).await
    }

    pub(super) fn udp(&self) -> SocketAddr {
        self.at.tls
    }

    pub(super) async fn h1(&self, host: &str) -> Viewer {
        Viewer::h1(self.at.tls, &self.trust, host).await
    }

    pub(super) async fn h2(&self, host: &str) -> Viewer {
        Viewer::h2(self.at.tls, &self.trust, host).await
    }

    pub(super) async fn h3(&self, host: &str) -> Viewer {
        Viewer::h3(self.at.tls, &self.trust, host).await
    }

    /// A ticket to the protected name.
    pub(super) fn ticket(&self) -> ViewerTicket {
        self.hub.viewer_ticket(self.server, NAME)
    }

    /// A request to the protected name with a fresh ticket.
    pub(super) fn get(&self, path: &str) -> http::request::Builder {
        let ticket = self.hub.sign(&self.ticket());
        Request::builder().uri(path).header("host", NAME).header("x-phlix-ticket", ticket)
    }
}

/// A request without a body.
pub(super) fn bare(builder: http::request::Builder) -> Request<ViewerBody> {
    builder.body(nothing()).unwrap()
}

fn sockets() -> Sockets {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    // Of a few numbers that are free on TCP, one is free on UDP.
    let (tls, quic) = (0..16)
        .find_map(|_| {
            let tls = tcp();
            let quic = UdpSocket::bind(tls.local_addr().unwrap()).ok()?;
            Some((tls, quic))
        })
        .unwrap();
    Sockets { http: Some(tcp()), tls, quic, metrics: Some(tcp()), relay_server: Some(tcp()), relay_client: Some(tcp()) }
}

/// Asks until it is so, at most 10 s.
pub(super) async fn until(mut so: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it never became so");
}
