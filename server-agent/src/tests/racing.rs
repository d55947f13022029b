//! Which transport carries a tunnel, and by which way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::Proxies;

const NO_ORIGIN: &str = "http://127.0.0.1:9";

/// An agent that may take any transport, and the tunnel that an edge of this manner gets.
async fn opened(manner: Manner, adjust: impl FnOnce(&mut Config)) -> (Agent, EdgeTunnel, tempfile::TempDir) {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(manner);
    hub.bend().edges = vec![edge.entry()];
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    adjust(&mut config);
    let mut agent = Agent::start(config);
    let tunnel = soon(edge.tunnel()).await;
    agent.connected().await;
    (agent, tunnel, folder)
}

#[tokio::test]
async fn quic_wins_where_both_answer() {
    let (agent, tunnel, _folder) = opened(Manner::Honest, |_| {}).await;
    assert_eq!(tunnel.link.transport(), Transport::Quic);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn websocket_carries_where_udp_is_swallowed() {
    let began = std::time::Instant::now();
    let (agent, tunnel, _folder) = opened(Manner::WithoutQuic, |_| {}).await;
    assert_eq!(tunnel.link.transport(), Transport::WebSocket);
    // Long before QUIC would have given up.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn the_status_and_the_event_say_which_transport_it_is() {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(Manner::WithoutQuic);
    hub.bend().edges = vec![edge.entry()];
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    let transport = agent
        .event(|event| match event {
            Event::Connected { transport, .. } => Some(*transport),
            _ => None,
        })
        .await;
    assert_eq!(transport, Transport::WebSocket);
    soon(async {
        loop {
            if let Ok(Some(status)) = crate::status(folder.path())
                && let crate::Stage::Connected { transport, .. } = status.stage
            {
                assert_eq!(transport, "websocket");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn an_edge_that_can_not_be_understood_by_one_transport_is_tried_by_the_other() {
    let (agent, tunnel, _folder) = opened(Manner::MuteOverQuic, |_| {}).await;
    assert_eq!(tunnel.link.transport(), Transport::WebSocket);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_path_that_swallows_large_datagrams_is_left_for_the_other_transport() {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(Manner::Honest);
    let relay = Relay::before(edge.entry().port).await;
    let mut entry = edge.entry();
    entry.port = relay.port;
    hub.bend().edges = vec![entry];
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&hub, format!("http://{}", origin.local_addr().unwrap()).parse().unwrap(), folder.path());
    config.timings.dead_path = Duration::from_secs(2);
    let mut agent = Agent::start(config);
    let tunnel = soon(edge.tunnel()).await;
    agent.connected().await;
    assert_eq!(tunnel.link.transport(), Transport::Quic);
    // Its data is large, its pings are small, and only those pass.
    relay.swallow.store(true, Ordering::SeqCst);
    let (mut send, _receive) = tunnel.open("a.hub.localhost", Some(hub.viewer_ticket("a.hub.localhost"))).await;
    let _ = send.write_all(b"?").await;
    let again = soon(edge.tunnel()).await;
    assert_eq!(again.link.transport(), Transport::WebSocket);
    drop(origin);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_proxy_is_gone_through_by_websocket_with_its_password() {
    let proxy = HttpProxy::start(Some("Basic bWU6c2VjcmV0")).await;
    let address = proxy.address;
    let (agent, tunnel, _folder) = opened(Manner::WithoutQuic, |config| {
        config.proxies = Proxies::parse(Some(&format!("http://me:secret@{address}")), None).unwrap();
    })
    .await;
    assert_eq!(tunnel.link.transport(), Transport::WebSocket);
    assert_eq!(proxy.passed.load(Ordering::SeqCst), 1);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_and_one_that_is_excepted() {
    let proxy = HttpProxy::start(Some("Basic bWU6c2VjcmV0")).await;
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(Manner::WithoutQuic);
    hub.bend().edges = vec![edge.entry()];
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    config.transport = Pinned::WebSocket;
    config.proxies = Proxies::parse(Some(&format!("http://{}", proxy.address)), None).unwrap();
    let mut agent = Agent::start(config.clone());
    let reason = agent.disconnected().await;
    assert!(reason.contains("wants a user and a password"), "{reason}");
    agent.stopped().await.unwrap();

    config.proxies = Proxies::parse(Some(&format!("http://{}", proxy.address)), Some("127.0.0.0/8")).unwrap();
    let mut agent = Agent::start(config);
    agent.connected().await;
    assert_eq!(proxy.passed.load(Ordering::SeqCst), 0);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_proof_is_bound_to_nothing_for_a_marked_edge_over_websocket_alone() {
    for (marked, transport, opens) in
        [(true, Transport::WebSocket, true), (false, Transport::WebSocket, false), (true, Transport::Quic, false)]
    {
        let hub = FakeHub::start().await;
        let edge = FakeEdge::start(Manner::Unbound);
        let mut entry = edge.entry();
        entry.behind_proxy = marked;
        hub.bend().edges = vec![entry];
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
        config.transport = pinned(transport);
        let mut agent = Agent::start(config);
        if opens {
            agent.connected().await;
        } else {
            let reason = agent.disconnected().await;
            assert!(reason.contains("not bound to the connection"), "{reason}");
        }
        agent.stopped().await.unwrap();
    }
}

/// Stands in front of an edge, for both transports; swallows datagrams above 200 bytes when told to.
struct Relay {
    port: u16,
    swallow: Arc<AtomicBool>,
}

impl Relay {
    async fn before(edge: u16) -> Self {
        let edge: SocketAddr = ([127, 0, 0, 1], edge).into();
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let port = udp.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        tokio::spawn(datagrams(udp, edge, Arc::clone(&swallow)));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = tcp.accept().await {
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(edge).await?;
                    tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, 65_536, 65_536).await
                });
            }
        });
        Self { port, swallow }
    }
}

async fn datagrams(near: UdpSocket, edge: SocketAddr, swallow: Arc<AtomicBool>) {
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut agent = None;
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok((length, from)) = near.recv_from(&mut up) => {
                agent = Some(from);
                if length <= 200 || !swallow.load(Ordering::SeqCst) {
                    let _ = far.send_to(&up[..length], edge).await;
                }
            }
            Ok((length, _)) = far.recv_from(&mut down) => {
                if let Some(agent) = agent && (length <= 200 || !swallow.load(Ordering::SeqCst)) {
                    let _ = near.send_to(&down[..length], agent).await;
                }
            }
        }
    }
}

/// Takes `CONNECT` and nothing else.
struct HttpProxy {
    address: SocketAddr,
    passed: Arc<AtomicUsize>,
}

impl HttpProxy {
    async fn start(wanted: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&passed);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, wanted, Arc::clone(&counted)));
            }
        });
        Self { address, passed }
    }
}

async fn connect(mut near: TcpStream, wanted: Option<&str>, passed: Arc<AtomicUsize>) -> Option<()> {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(near.read_u8().await.ok()?);
    }
    let asked = String::from_utf8(asked).unwrap();
    if wanted.is_some_and(|wanted| !asked.contains(&format!("Proxy-Authorization: {wanted}\r\n"))) {
        near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await.ok()?;
        return None;
    }
    let target = asked.strip_prefix("CONNECT ")?.split(' ').next()?;
    let mut far = TcpStream::connect(target).await.ok()?;
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    passed.fetch_add(1, Ordering::SeqCst);
    tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, 65_536, 65_536).await.ok()?;
    Some(())
}
