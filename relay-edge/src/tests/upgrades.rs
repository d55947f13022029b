//! WebSockets through the edge, by each protocol of viewers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, Request};
use hyper_util::rt::TokioIo;
use phlix_protocol::uplink::Selector;
use phlix_protocol::ws::handshake;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpListener;

use super::agent::Serve;
use super::raw3::{Raw3, Stream3};
use super::viewer::{self, Viewer, nothing};
use super::world::{NAME, OPEN, World};

pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What an origin does with an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Grants it, says `hello` at once, and sends back what comes.
    Echo,
    /// Grants it with the accept of another key.
    WrongAccept,
    NoAccept,
    /// Answers something else.
    Says(&'static str),
}

struct Origin {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    /// What came before the answer was out, by connection.
    early: Arc<Mutex<Vec<Vec<u8>>>>,
    ended: Arc<tokio::sync::Notify>,
}

async fn origin(does: Does) -> Origin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin {
        address: listener.local_addr().unwrap(),
        heads: Arc::default(),
        early: Arc::default(),
        ended: Arc::default(),
    };
    let (heads, early, ended) = (Arc::clone(&origin.heads), Arc::clone(&origin.early), Arc::clone(&origin.ended));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (heads, early, ended) = (Arc::clone(&heads), Arc::clone(&early), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut read = Vec::new();
                let end = loop {
                    if let Some(end) = read.windows(4).position(|end| end == b"\r\n\r\n") {
                        break end + 4;
                    }
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                };
                early.lock().unwrap().push(read.split_off(end));
                let head = String::from_utf8(read).unwrap();
                let key = field(&head, "sec-websocket-key").unwrap_or_default();
                heads.lock().unwrap().push(head);
                let accept = match does {
                    Does::Echo => format!("sec-websocket-accept: {}\r\n", handshake::accept_key(&key)),
                    Does::WrongAccept => format!("sec-websocket-accept: {}\r\n", handshake::accept_key("x")),
                    Does::NoAccept => String::new(),
                    Does::Says(answer) => {
                        let _ = stream.write_all(answer.as_bytes()).await;
                        return;
                    }
                };
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{accept}\
                     sec-websocket-protocol: chat\r\nset-cookie: sid=1; Path=/\r\n\r\nhello"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut from, mut to) = stream.split();
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = from.read(&mut bytes).await {
                    if to.write_all(&bytes[..read]).await.is_err() {
                        break;
                    }
                }
                let _ = to.shutdown().await;
                ended.notify_one();
            });
        }
    });
    origin
}

pub(super) fn field(head: &str, name: &str) -> Option<String> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, value)| value.into())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    H1,
    H2,
    H3,
}

pub(super) const ALL: [By; 3] = [By::H1, By::H2, By::H3];

pub(super) trait Bytes: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Bytes for T {}

/// A viewer's end of an upgraded connection.
pub(super) enum Socket {
    Bytes(ReadHalf<Box<dyn Bytes>>, WriteHalf<Box<dyn Bytes>>),
    /// With its connection, which ends when this is dropped.
    H3 {
        stream: Stream3,
        _connection: Raw3,
    },
}

impl Socket {
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        match self {
            Self::Bytes(_, send) => {
                send.write_all(bytes).await.unwrap();
                send.flush().await.unwrap();
            }
            Self::H3 { stream, .. } => stream.say(bytes).await,
        }
    }

    pub(super) async fn finish(&mut self) {
        match self {
            Self::Bytes(_, send) => send.shutdown().await.unwrap(),
            Self::H3 { stream, .. } => stream.finish(),
        }
    }

    /// So many bytes, or fewer at the end, or an error.
    pub(super) async fn hear(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let heard = async {
            match self {
                Self::Bytes(recv, _) => {
                    let mut bytes = Vec::new();
                    recv.take(length as u64).read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
                    Ok(bytes)
                }
                Self::H3 { stream, .. } => stream.hear(length).await,
            }
        };
        tokio::time::timeout(Duration::from_secs(10), heard).await.expect("it says something")
    }
}

/// Asks for a WebSocket. The answer's status and, where it was granted, the socket.
async fn open(world: &World, by: By, host: &str, more: &[(&str, &str)]) -> (u16, Option<Socket>) {
    open_by(world, by, host, &world.hub.sign(&world.ticket()), more).await
}

/// The same with a ticket of the test's choice.
async fn open_by(world: &World, by: By, host: &str, ticket: &str, more: &[(&str, &str)]) -> (u16, Option<Socket>) {
    let mut fields = more.to_vec();
    if host == NAME {
        fields.push(("x-phlix-ticket", ticket));
    }
    open_at(world, by, host, "/socket?a=b", &fields).await
}

/// The same at a path of the test's choice.
pub(super) async fn open_at(
    world: &World,
    by: By,
    host: &str,
    target: &str,
    more: &[(&str, &str)],
) -> (u16, Option<Socket>) {
    let mut fields = vec![("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat, other")];
    fields.extend(more);
    match by {
        By::H1 => {
            let mut stream = viewer::tls(world.at.tls, &world.trust, host, &[b"http/1.1"]).await;
            let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!(
                "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-key: {KEY}\r\n{fields}\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n") {
                read.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(read).unwrap();
            let status = head[9..12].parse().unwrap();
            if status != 101 {
                return (status, None);
            }
            assert_eq!(field(&head, "sec-websocket-accept"), Some(handshake::accept_key(KEY)));
            assert_eq!(field(&head, "sec-websocket-protocol").as_deref(), Some("chat"));
            let (recv, send) = tokio::io::split(Box::new(stream) as Box<dyn Bytes>);
            (status, Some(Socket::Bytes(recv, send)))
        }
        By::H2 => {
            let Viewer::H2(mut sender) = world.h2(host).await else { unreachable!() };
            let mut request = Request::builder().method(Method::CONNECT).uri(format!("https://{host}{target}"));
            for (name, value) in fields {
                request = request.header(name, value);
            }
            let mut request = request.body(nothing()).unwrap();
            request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
            // The edge's settings say that it knows this; they are there with its first answer.
            let warm = Request::builder().uri(format!("https://{host}/.phlix/x")).body(nothing()).unwrap();
            let _ = sender.send_request(warm).await.unwrap();
            let response = sender.send_request(request).await.unwrap();
            let status = response.status().as_u16();
            if status != 200 {
                return (status, None);
            }
            assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
            assert!(!response.headers().contains_key("sec-websocket-accept"));
            let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            // The connection goes on with the socket.
            let (recv, send) = tokio::io::split(Box::new(upgraded) as Box<dyn Bytes>);
            tokio::spawn(async move { sender.ready().await.map(|()| std::future::pending::<()>()) });
            (status, Some(Socket::Bytes(recv, send)))
        }
        By::H3 => {
            let raw = Raw3::open(world, host).await;
            let mut all = vec![
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":authority", host),
                (":path", target),
            ];
            all.extend(fields);
            let mut stream = raw.ask(&all).await;
            let status = stream.status().await.unwrap();
            (status, (status == 200).then_some(Socket::H3 { stream, _connection: raw }))
        }
    }
}

#[tokio::test]
async fn a_websocket_passes_both_ways_and_ends_both_ways() {
    let world = World::start().await;
    let origin = origin(Does::Echo).await;
    let _agent = world.tunnel_to(Serve::Origin(origin.address)).await;
    for by in ALL {
        let (status, socket) = open(&world, by, NAME, &[]).await;
        assert_eq!(status, if by == By::H1 { 101 } else { 200 }, "{by:?}");
        let mut socket = socket.unwrap();
        assert_eq!(socket.hear(5).await.unwrap(), b"hello", "{by:?}: what came right behind the head");
        // No UTF-8, no frame: bytes are bytes.
        socket.say(&[0x81, 0xff, 0, 0xc3]).await;
        assert_eq!(socket.hear(4).await.unwrap(), [0x81, 0xff, 0, 0xc3], "{by:?}");
        let large: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let half = large.len() / 2;
        socket.say(&large[..half]).await;
        assert!(socket.hear(half).await.unwrap() == large[..half], "{by:?}");
        socket.finish().await;
        assert_eq!(socket.hear(1).await.unwrap(), b"", "{by:?}: the origin's end is passed on");
        origin.ended.notified().await;

        let head = origin.heads.lock().unwrap().pop().unwrap();
        assert!(head.starts_with("GET /socket?a=b HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "upgrade").as_deref(), Some("websocket"));
        assert_eq!(field(&head, "connection").as_deref(), Some("Upgrade"));
        assert_eq!(field(&head, "sec-websocket-protocol").as_deref(), Some("chat, other"));
        assert_eq!(field(&head, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(field(&head, "sec-websocket-key").as_deref() == Some(KEY), by == By::H1);
        assert!(!head.contains("phlix"), "{head}");
    }
}

#[tokio::test]
async fn nothing_goes_on_before_the_right_101() {
    let world = World::start().await;
    let ticket = world.hub.sign(&world.ticket());
    for does in [Does::WrongAccept, Does::NoAccept, Does::Says("HTTP/1.1 101 Switching Protocols\r\n\r\n")] {
        let origin = origin(does).await;
        let _agent = world.tunnel_to(Serve::Origin(origin.address)).await;
        for by in ALL {
            assert_eq!(open(&world, by, NAME, &[]).await.0, 502, "{does:?} {by:?}");
        }
        // With bytes right behind the head, that might be for whoever listens.
        let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
        let head = format!(
            "GET /x HTTP/1.1\r\nhost: {NAME}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\nx-phlix-ticket: {ticket}\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nhost: {NAME}\r\nx-phlix-ticket: {ticket}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        read.expect("the connection ends").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 502"));
        assert_eq!(answer.windows(9).filter(|part| part == b"HTTP/1.1 ").count(), 1);
        assert!(origin.early.lock().unwrap().iter().all(Vec::is_empty));
        assert!(origin.heads.lock().unwrap().iter().all(|head| !head.contains("smuggled")));
    }
}

#[tokio::test]
async fn what_an_origin_says_instead_of_101_is_its_answer() {
    let world = World::start().await;
    let refuses = origin(Does::Says("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")).await;
    let _agent = world.tunnel_to(Serve::Origin(refuses.address)).await;
    for by in ALL {
        assert_eq!(open(&world, by, NAME, &[]).await.0, 403, "{by:?}");
    }
    let ok = origin(Does::Says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")).await;
    let _agent = world.tunnel_to(Serve::Origin(ok.address)).await;
    for (by, status) in [(By::H1, 200), (By::H2, 502), (By::H3, 502)] {
        assert_eq!(open(&world, by, NAME, &[]).await.0, status, "{by:?}: a 2xx would be a grant");
    }
}

#[tokio::test]
async fn another_place_opens_no_websocket_here_and_no_other_protocol_is_connected_to() {
    let world = World::start().await;
    let origin = origin(Does::Echo).await;
    let agent = world.tunnel_to(Serve::Origin(origin.address)).await;
    for by in ALL {
        for elsewhere in ["https://evil.example", "http://ab.hub.localhost", "null", "https://open.hub.localhost"] {
            assert_eq!(open(&world, by, NAME, &[("origin", elsewhere)]).await.0, 403, "{by:?} {elsewhere}");
            assert_eq!(open(&world, by, OPEN, &[("origin", "https://evil.example")]).await.0, 403, "{by:?}");
        }
    }
    let raw = Raw3::open(&world, NAME).await;
    for protocol in ["connect-udp", "webtransport", "WebSocket", "x"] {
        let fields = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":authority", NAME),
            (":path", "/"),
        ];
        assert_eq!(raw.ask(&fields).await.status().await, Ok(501), "{protocol}");
    }
    assert_eq!(raw.ask(&[(":method", "CONNECT"), (":authority", NAME)]).await.status().await, Ok(501));
    for (upgrade, method) in [("tls/1.3", "GET"), ("websocket, x", "GET"), ("websocket", "POST")] {
        let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
        let ticket = world.hub.sign(&world.ticket());
        let head = format!(
            "{method} /x HTTP/1.1\r\nhost: {NAME}\r\nconnection: Upgrade\r\nupgrade: {upgrade}\r\n\
             sec-websocket-key: {KEY}\r\nx-phlix-ticket: {ticket}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *b"HTTP/1.1 501", "{upgrade} {method}");
    }
    assert_eq!(agent.headers().len(), 0, "nothing of it went down the tunnel");
    let here = format!("https://{NAME}:{}", world.at.tls.port());
    for by in ALL {
        assert!(open(&world, by, NAME, &[("origin", &here)]).await.1.is_some(), "{by:?}");
    }
}

#[tokio::test]
async fn a_withdrawn_right_cuts_a_websocket_within_2_s() {
    let world = World::start().await;
    let origin = origin(Does::Echo).await;
    let _agent = world.tunnel_to(Serve::Origin(origin.address)).await;
    for by in ALL {
        let ticket = world.ticket();
        let (_, socket) = open_by(&world, by, NAME, &world.hub.sign(&ticket), &[]).await;
        let mut socket = socket.unwrap();
        assert_eq!(socket.hear(5).await.unwrap(), b"hello");
        world.hub.revoke(Selector::Sid(ticket.sid));
        let cut = tokio::time::timeout(Duration::from_secs(2), socket.hear(1)).await.expect("cut within 2 s");
        assert!(cut.is_err() || cut.unwrap().is_empty(), "{by:?}");
        let ended = tokio::time::timeout(Duration::from_secs(2), origin.ended.notified()).await;
        ended.expect("the origin knows");
    }
}

#[tokio::test]
async fn a_viewer_who_leaves_its_websocket_is_known_to_the_origin_within_100_ms() {
    let world = World::start().await;
    let origin = origin(Does::Echo).await;
    let _agent = world.tunnel_to(Serve::Origin(origin.address)).await;
    for by in ALL {
        let mut socket = open(&world, by, NAME, &[]).await.1.unwrap();
        assert_eq!(socket.hear(5).await.unwrap(), b"hello");
        let left = Instant::now();
        drop(socket);
        origin.ended.notified().await;
        assert!(left.elapsed() < Duration::from_millis(100), "{by:?}: {:?}", left.elapsed());
    }
}
