//! What the health of a QUIC path says, over a line that goes black or swallows large datagrams.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use phlix_protocol::native;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};
use tokio::net::UdpSocket;

use crate::{Health, Link, Measured, PathHealth, RecvStream, SendStream, tls};

/// As an edge looks at its tunnels; but an edge waits for 10 s before it calls one dead.
const TICK: Duration = Duration::from_millis(500);
const STALLED: Duration = Duration::from_secs(2);
const DEAD: Duration = Duration::from_secs(4);

/// Loss probes tell of a request, and a glance sees it, within a second and a half; the rest is a busy machine's.
const NOTICED: Duration = Duration::from_millis(2_500);

/// Each ends well before this, or hangs.
const SOON: Duration = Duration::from_secs(20);

const WINDOW: u32 = 1 << 20;

/// A line that passes datagrams of at most so many bytes, both ways.
struct Line {
    address: SocketAddr,
    passes: Arc<AtomicUsize>,
}

impl Line {
    async fn to(edge: SocketAddr, passes: usize) -> Self {
        let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let theirs = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        theirs.connect(edge).await.expect("an address");
        let line = Self { address: ours.local_addr().expect("an address"), passes: Arc::new(AtomicUsize::new(passes)) };
        let passes = Arc::clone(&line.passes);
        tokio::spawn(async move {
            let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            let mut agent = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = ours.recv_from(&mut up) => {
                        agent = Some(from);
                        if length <= passes.load(Ordering::Relaxed) {
                            let _ = theirs.send(&up[..length]).await;
                        }
                    }
                    Ok(length) = theirs.recv(&mut down) => {
                        if let Some(agent) = agent && length <= passes.load(Ordering::Relaxed) {
                            let _ = ours.send_to(&down[..length], agent).await;
                        }
                    }
                }
            }
        });
        line
    }

    fn set(&self, passes: usize) {
        self.passes.store(passes, Ordering::Relaxed);
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(Measured))
        .keep_alive_interval(Some(Duration::from_secs(5)))
        .max_idle_timeout(Some(Duration::from_secs(15).try_into().expect("15 s are below QUIC's limit")));
    Arc::new(transport)
}

/// An edge, and a used connection to an agent's origin, over a line.
struct House {
    line: Line,
    edge: Link,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    _agent: Link,
    _endpoint: Endpoint,
}

impl House {
    async fn start(passes: usize) -> Self {
        let (server, client) = tls::pair(&[native::ALPN]);
        let server = QuicServerConfig::try_from(server).expect("TLS 1.3");
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport());
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = Endpoint::server(server, any).expect("a socket");
        let line = Line::to(endpoint.local_addr().expect("an address"), passes).await;

        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).expect("TLS 1.3")));
        config.transport_config(transport());
        let dialler = Endpoint::client(any).expect("a socket");
        let dialled = dialler.connect_with(config, line.address, tls::NAME).expect("an address");
        let accepted = async { endpoint.accept().await.expect("a connection").await.expect("a handshake") };
        let (dialled, connection) = tokio::join!(dialled, accepted);
        let agent = Link::quic_dialled(dialler, dialled.expect("a handshake"), WINDOW);
        let edge = Link::quic(connection.clone(), WINDOW);

        let (send, recv) = edge.open().await.expect("open");
        let echo = agent.clone();
        tokio::spawn(async move {
            let (mut send, mut recv) = echo.accept().await?;
            while let Ok(Some(bytes)) = recv.read_chunk(usize::MAX).await {
                if send.write_chunk(bytes).await.is_err() {
                    break;
                }
            }
            Ok::<_, crate::End>(())
        });
        let mut house = Self { line, edge, connection, send, recv, _agent: agent, _endpoint: endpoint };
        house.ask().await;
        house.hear().await;
        house
    }

    /// Sends a request; returns when it is on the line.
    async fn ask(&mut self) {
        let frames = || self.connection.stats().frame_tx.stream;
        let before = frames();
        self.send.write_all(&[7; 300]).await.expect("open");
        while frames() == before {
            tokio::task::yield_now().await;
        }
    }

    async fn hear(&mut self) {
        self.recv.read_exact(&mut [0; 300]).await.expect("an answer");
    }

    /// Looks at the path each half second until it is so; how long that took.
    async fn until(&self, health: &mut PathHealth, wanted: Health) -> Duration {
        let since = Instant::now();
        let looking = async {
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                if health.observe(self.edge.sample(), Instant::now()) == wanted {
                    return since.elapsed();
                }
            }
        };
        tokio::time::timeout(SOON, looking).await.expect("it comes to that")
    }
}

#[tokio::test]
async fn a_request_right_after_the_last_answer_is_noticed_to_be_lost_and_to_get_through() {
    let mut house = House::start(usize::MAX).await;
    let mut health = PathHealth::new(STALLED, DEAD);
    house.line.set(0);
    house.ask().await;
    // What the last answer acknowledged and the request that was lost are first seen in one glance.
    let took = house.until(&mut health, Health::Stalled).await;
    assert!(took >= STALLED && took <= STALLED + NOTICED, "stalled after {took:?}");
    println!("stalled after {took:?}");

    house.line.set(usize::MAX);
    house.until(&mut health, Health::Moving).await;
    house.hear().await;
}

#[tokio::test]
async fn a_black_line_is_dead() {
    let mut house = House::start(usize::MAX).await;
    let mut health = PathHealth::new(STALLED, DEAD);
    house.line.set(0);
    house.ask().await;
    let took = house.until(&mut health, Health::Dead).await;
    assert!(took >= DEAD && took <= DEAD + NOTICED, "dead after {took:?}");
    assert!(house.edge.close_reason().is_none());
}

#[tokio::test]
async fn a_line_that_loses_only_probes_of_its_mtu_is_well() {
    // Ethernet less a tunnel: discovery tries 1452 bytes, and what is sent fits.
    let mut house = House::start(1_300).await;
    let mut health = PathHealth::new(STALLED / 4, DEAD);
    let since = Instant::now();
    let mut tick = tokio::time::interval(TICK / 4);
    let probes = |house: &House| house.connection.stats().path.sent_plpmtud_probes;
    while since.elapsed() < STALLED || probes(&house) == 0 {
        tick.tick().await;
        house.ask().await;
        house.hear().await;
        assert_eq!(health.observe(house.edge.sample(), Instant::now()), Health::Moving);
    }
    // And while it is idle.
    while since.elapsed() < STALLED * 2 {
        tick.tick().await;
        assert_eq!(health.observe(house.edge.sample(), Instant::now()), Health::Moving);
    }
}
