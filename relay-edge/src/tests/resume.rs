//! Tunnels that die under an exchange.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use phlix_protocol::ids::InstanceId;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{Access, TunnelTicket, ViewerTicket};
use phlix_protocol::uplink::Selector;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::agent::{Agent, Introduction, Serve};
use super::viewer::{AnswerBody, Viewer, ViewerBody, bytes, nothing};
use super::world::{NAME, OPEN, World, bare, until};
use crate::{clock, random};

const LENGTH: usize = 3 << 20;

/// The film, made once.
fn reel() -> Bytes {
    static FILM: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    FILM.get_or_init(shoot).clone()
}

/// Bytes that are nowhere like themselves.
fn shoot() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..LENGTH / 8).flat_map(|_| next()).collect::<Vec<u8>>().into()
}

/// What an origin answers.
#[derive(Debug, Clone, Copy)]
struct Film {
    etag: &'static str,
    meaning: &'static str,
    says: Says,
    /// After so many bytes of a body nothing more comes.
    holds_after: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// What was asked for.
    Right,
    /// The whole film, whatever was asked for.
    Whole,
    /// A head that says no length.
    Chunked,
    /// Nothing.
    Nothing,
    /// A part that begins and ends so many bytes later, of a film that is so many bytes longer.
    Off {
        first: isize,
        last: isize,
        total: isize,
    },
    /// A body that is a byte short of its head's range, by its length.
    Short,
    Unavailable,
    /// The body breaks off after what is held.
    Breaks,
}

const GOOD: Film =
    Film { etag: "\"v1\"", meaning: "content-type: video/mp4", says: Says::Right, holds_after: usize::MAX };

/// Stops in the middle.
const HOLDS: Film = Film { holds_after: 400_000, ..GOOD };

/// A running origin and the heads that it was asked with, in lower case.
struct Cinema {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cinema {
    async fn shows(film: Film) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let heads = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let heads = Arc::clone(&heads);
                tokio::spawn(async move { show(stream, film, &heads).await });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Values of this field in the last head.
    fn last(&self, name: &str) -> Vec<String> {
        let head = self.asked().pop().expect("it was asked");
        let field = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
        head.lines().filter_map(field).collect()
    }
}

async fn show(mut stream: TcpStream, film: Film, heads: &Mutex<Vec<String>>) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
        let range = range.and_then(|range| range.split_once('-'));
        let range: Option<(usize, usize)> =
            range.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap_or(LENGTH - 1)));
        let (first, last) = range.unwrap_or((0, LENGTH - 1));
        heads.lock().unwrap().push(head.clone());

        let (mut first, mut last, mut total) = (first, last, LENGTH);
        let mut length = None;
        match film.says {
            Says::Nothing => std::future::pending().await,
            Says::Unavailable => {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno").await.ok()?;
                continue;
            }
            Says::Off { first: a, last: b, total: c } => {
                first = first.checked_add_signed(a).unwrap();
                last = last.checked_add_signed(b).unwrap();
                total = total.checked_add_signed(c).unwrap();
            }
            Says::Short => length = Some(last - first),
            Says::Right | Says::Whole | Says::Chunked | Says::Breaks => {}
        }
        let Film { etag, meaning, .. } = film;
        let start = match (range, film.says) {
            (None, _) | (_, Says::Whole) => {
                (first, last) = (0, LENGTH - 1);
                "HTTP/1.1 200 OK".to_owned()
            }
            _ => format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {first}-{last}/{total}"),
        };
        let length = length.unwrap_or(last - first + 1);
        let framing = match film.says {
            Says::Chunked => "transfer-encoding: chunked".to_owned(),
            _ => format!("content-length: {length}"),
        };
        stream.write_all(format!("{start}\r\netag: {etag}\r\n{meaning}\r\n{framing}\r\n\r\n").as_bytes()).await.ok()?;
        if film.says == Says::Chunked {
            stream.write_all(format!("{length:x}\r\n").as_bytes()).await.ok()?;
        }
        if head.starts_with("head ") {
            continue;
        }
        let body: Bytes = [reel(), Bytes::from_static(&[0; 64])].concat().into();
        let body = body.slice(first..first + length);
        stream.write_all(&body[..body.len().min(film.holds_after)]).await.ok()?;
        if film.holds_after < body.len() {
            if film.says == Says::Breaks {
                return None;
            }
            std::future::pending::<()>().await;
        }
    }
}

impl World {
    /// A tunnel of the one installation, which replaces the one before where the edge has not heard of its death.
    async fn tunnel_to_cinema(&self, cinema: &Cinema) -> Agent {
        let mut introduction = self.introduction();
        introduction.hello.instance = InstanceId::new(uuid::Uuid::from_u128(1));
        self.introduce(introduction, Serve::Origin(cinema.address)).await.unwrap()
    }

    /// A number of the metrics page.
    async fn metric(&self, name: &str) -> String {
        let request = Request::builder().uri("/metrics").header("host", "x").body(nothing()).unwrap();
        let page = Viewer::plain(self.at.metrics.unwrap()).await.fetch(request).await.body;
        let page = String::from_utf8(page.to_vec()).unwrap();
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
        page.lines().find_map(value).unwrap_or_default()
    }

    async fn viewers(&self) -> [Viewer; 3] {
        [self.h1(NAME).await, self.h2(NAME).await, self.h3(NAME).await]
    }
}

fn die(agent: Agent) {
    agent.link.close(0, "");
}

/// An answer as it is read.
struct Reading {
    body: AnswerBody,
    read: Vec<u8>,
}

impl Reading {
    async fn begin(viewer: &mut Viewer, request: Request<ViewerBody>) -> Self {
        let response = viewer.send(request).await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        Self { body: response.into_body(), read: Vec::new() }
    }

    /// Reads on until it has so many bytes in all.
    async fn to(&mut self, length: usize) {
        while self.read.len() < length {
            let frame = self.body.frame().await.expect("there is more").expect("it goes on");
            self.read.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// Reads on to the end; `None` when it is aborted.
    async fn end(mut self) -> Option<Vec<u8>> {
        let reading = async {
            while let Some(frame) = self.body.frame().await {
                self.read.extend_from_slice(frame.ok()?.data_ref()?);
            }
            Some(self.read)
        };
        tokio::time::timeout(Duration::from_secs(20), reading).await.expect("it ends")
    }
}

#[tokio::test]
async fn a_download_survives_three_deaths_and_not_a_fourth() {
    for deaths in [1, 3, 4] {
        let world = World::start().await;
        for mut viewer in world.viewers().await {
            let mut agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
            let mut reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
            for death in 1..=deaths {
                reading.to(death * HOLDS.holds_after).await;
                die(agent);
                let cinema = Cinema::shows(if death == deaths { GOOD } else { HOLDS }).await;
                agent = world.tunnel_to_cinema(&cinema).await;
                if death == 4 {
                    assert_eq!(reading.end().await, None, "a fourth death is the end");
                    assert!(cinema.asked().is_empty());
                    break;
                }
                until(async || !cinema.asked().is_empty()).await;
                let from = death * HOLDS.holds_after;
                assert_eq!(cinema.last("range"), [format!("bytes={from}-{}", LENGTH - 1)]);
                assert_eq!(cinema.last("if-range"), ["\"v1\""]);
                if death == deaths {
                    assert!(reading.end().await.unwrap() == reel());
                    break;
                }
            }
            die(agent);
        }
    }
}

#[tokio::test]
async fn each_byte_is_counted_once() {
    let world = World::start().await;
    let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
    let mut viewer = world.h1(NAME).await;
    let mut reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
    reading.to(1).await;
    die(agent);
    let _agent = world.tunnel_to_cinema(&Cinema::shows(GOOD).await).await;
    assert!(reading.end().await.unwrap() == reel());
    let resumed = "phlix_edge_resumes_total{missing=\"body\",outcome=\"resumed\"}";
    assert_eq!(world.metric(resumed).await, "1");
    until(async || world.metric("phlix_edge_response_body_bytes_total").await == LENGTH.to_string()).await;
}

#[tokio::test]
async fn what_lay_in_a_buffer_comes_again_and_what_was_delivered_does_not() {
    let world = World::with(|config| config.windows.stream_receive = 256 << 10).await;
    // All of it is sent, and most of it is not read.
    let agent = world.tunnel_to_cinema(&Cinema::shows(GOOD).await).await;
    let mut viewer = world.h2(NAME).await;
    let mut reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
    reading.to(1).await;
    die(agent);
    let cinema = Cinema::shows(GOOD).await;
    let _agent = world.tunnel_to_cinema(&cinema).await;
    assert!(reading.end().await.unwrap() == reel());
}

#[tokio::test]
async fn a_part_goes_on_at_its_place_in_the_whole() {
    let world = World::start().await;
    for mut viewer in world.viewers().await {
        let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
        let asks = world.get("/film").header("range", "bytes=1000-1500000").header("if-none-match", "\"v0\"");
        let mut reading = Reading::begin(&mut viewer, bare(asks)).await;
        reading.to(HOLDS.holds_after).await;
        die(agent);
        let cinema = Cinema::shows(GOOD).await;
        let agent = world.tunnel_to_cinema(&cinema).await;
        assert!(reading.end().await.unwrap() == reel().slice(1000..=1_500_000));
        assert_eq!(cinema.last("range"), ["bytes=401000-1500000"]);
        assert!(cinema.last("if-none-match").is_empty());
        die(agent);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_the_exact_rest_aborts() {
    let world = World::start().await;
    let off = |first, last, total| Film { says: Says::Off { first, last, total }, ..GOOD };
    for second in [
        Film { etag: "\"v2\"", ..GOOD },
        Film { etag: "W/\"v1\"", ..GOOD },
        Film { meaning: "content-type: video/webm", ..GOOD },
        Film { meaning: "content-type: video/mp4\r\ncontent-encoding: gzip", ..GOOD },
        Film { meaning: "content-type: multipart/byteranges; boundary=x", ..GOOD },
        Film { says: Says::Whole, ..GOOD },
        Film { says: Says::Chunked, ..GOOD },
        Film { says: Says::Short, ..GOOD },
        Film { says: Says::Unavailable, ..GOOD },
        off(1, 0, 0),
        off(-1, 0, 0),
        off(0, -1, 0),
        off(0, 1, 1),
        off(0, 0, 1),
        off(0, 0, -1),
    ] {
        let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
        let mut viewer = world.h2(NAME).await;
        let mut reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
        reading.to(HOLDS.holds_after).await;
        die(agent);
        let cinema = Cinema::shows(second).await;
        let agent = world.tunnel_to_cinema(&cinema).await;
        assert_eq!(reading.end().await, None, "{second:?}");
        assert_eq!(cinema.asked().len(), 1, "{second:?}");
        die(agent);
    }
}

#[tokio::test]
async fn what_cannot_be_resumed_surely_is_aborted_and_not_asked_for() {
    let world = World::start().await;
    for (method, first) in [
        ("GET", Film { etag: "W/\"v1\"", ..HOLDS }),
        ("GET", Film { etag: "v1", ..HOLDS }),
        ("GET", Film { meaning: "content-type: multipart/mixed; boundary=x", ..HOLDS }),
        ("GET", Film { says: Says::Chunked, ..HOLDS }),
        ("POST", HOLDS),
        ("PUT", HOLDS),
    ] {
        for mut viewer in world.viewers().await {
            let agent = world.tunnel_to_cinema(&Cinema::shows(first).await).await;
            let mut reading = Reading::begin(&mut viewer, bare(world.get("/film").method(method))).await;
            reading.to(HOLDS.holds_after).await;
            let cinema = Cinema::shows(GOOD).await;
            let other = world.tunnel_to(Serve::Origin(cinema.address)).await;
            die(agent);
            assert_eq!(reading.end().await, None, "{method} {first:?}");
            assert!(cinema.asked().is_empty(), "{method} {first:?}");
            die(other);
        }
    }
}

#[tokio::test]
async fn a_get_with_a_body_is_not_made_twice() {
    let world = World::start().await;
    let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
    let mut viewer = world.h2(NAME).await;
    let request = world.get("/film").body(bytes("\r\n\r\n")).unwrap();
    let mut reading = Reading::begin(&mut viewer, request).await;
    reading.to(HOLDS.holds_after).await;
    let cinema = Cinema::shows(GOOD).await;
    let _other = world.tunnel_to(Serve::Origin(cinema.address)).await;
    die(agent);
    assert_eq!(reading.end().await, None);
    assert!(cinema.asked().is_empty());
}

#[tokio::test]
async fn an_origin_that_breaks_off_is_not_asked_again() {
    let world = World::start().await;
    let cinema = Cinema::shows(Film { says: Says::Breaks, ..HOLDS }).await;
    let _agent = world.tunnel_to_cinema(&cinema).await;
    let _other = world.tunnel_to(Serve::Origin(cinema.address)).await;
    for mut viewer in world.viewers().await {
        let reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
        assert_eq!(reading.end().await, None);
    }
    assert_eq!(cinema.asked().len(), 3);
}

#[tokio::test]
async fn another_key_or_generation_is_not_the_same_home() {
    let world = World::start().await;
    let names = [(NAME, Access::Protected), (OPEN, Access::Open)];
    let other_key = SigningKey::from_seed(&random::bytes());
    let later = |key: &SigningKey| -> TunnelTicket {
        TunnelTicket { generation: 2, ..world.hub.tunnel_ticket(world.server, key, &names) }
    };
    let first = |key: &SigningKey| world.hub.tunnel_ticket(world.server, key, &names);
    for (ticket, key) in [(first(&other_key), &other_key), (later(&world.server_key), &world.server_key)] {
        let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
        let mut viewer = world.h1(NAME).await;
        let mut reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
        reading.to(HOLDS.holds_after).await;
        die(agent);
        let cinema = Cinema::shows(GOOD).await;
        let mut introduction = Introduction::new(&world.hub, &ticket, key);
        introduction.hello.instance = InstanceId::new(uuid::Uuid::from_u128(1));
        let agent = world.introduce(introduction, Serve::Origin(cinema.address)).await.unwrap();
        assert_eq!(reading.end().await, None);
        assert!(cinema.asked().is_empty());
        die(agent);
    }
}

#[tokio::test]
async fn without_another_tunnel_in_time_the_transfer_is_aborted() {
    let patience = Duration::from_millis(300);
    let world = World::with(|config| config.timeouts.resume = patience).await;
    for mut viewer in world.viewers().await {
        let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
        let mut reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
        reading.to(HOLDS.holds_after).await;
        let died = Instant::now();
        die(agent);
        assert_eq!(reading.end().await, None);
        assert!(
            died.elapsed() >= patience && died.elapsed() < patience + Duration::from_secs(2),
            "{:?}",
            died.elapsed()
        );
    }
}

#[tokio::test]
async fn a_viewer_who_leaves_ends_the_wait() {
    let world = World::start().await;
    for mut viewer in world.viewers().await {
        let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
        let mut reading = Reading::begin(&mut viewer, bare(world.get("/film"))).await;
        reading.to(HOLDS.holds_after).await;
        die(agent);
        until(async || world.metric("phlix_edge_tunnels_open{transport=\"quic\"}").await == "0").await;
        assert_eq!(world.metric("phlix_edge_requests_active").await, "1");
        let left = Instant::now();
        drop((reading, viewer));
        until(async || world.metric("phlix_edge_requests_active").await == "0").await;
        assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
        let cinema = Cinema::shows(GOOD).await;
        let agent = world.tunnel_to_cinema(&cinema).await;
        assert!(world.h1(NAME).await.fetch(bare(world.get("/film"))).await.body == reel());
        assert_eq!(cinema.asked().len(), 1);
        die(agent);
    }
}

#[tokio::test]
async fn a_right_withdrawn_during_the_wait_ends_it() {
    let world = World::start().await;
    for mut viewer in world.viewers().await {
        let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
        let ticket = world.ticket();
        let request = Request::builder().uri("/film").header("host", NAME);
        let request = request.header("x-phlix-ticket", world.hub.sign(&ticket));
        let mut reading = Reading::begin(&mut viewer, bare(request)).await;
        reading.to(HOLDS.holds_after).await;
        die(agent);
        until(async || world.metric("phlix_edge_tunnels_open{transport=\"quic\"}").await == "0").await;
        let withdrawn = Instant::now();
        world.hub.revoke(Selector::Sub(ticket.sub));
        assert_eq!(reading.end().await, None);
        assert!(withdrawn.elapsed() < Duration::from_secs(2), "{:?}", withdrawn.elapsed());
    }
}

#[tokio::test]
async fn at_an_open_name_both_words_count_again() {
    for closed_by in ["directory", "tunnel", "revocation"] {
        let world = World::start().await;
        let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
        let mut viewer = world.h2(OPEN).await;
        let film = || bare(Request::builder().uri("/film").header("host", OPEN));
        let mut reading = Reading::begin(&mut viewer, film()).await;
        reading.to(HOLDS.holds_after).await;
        let cinema = Cinema::shows(GOOD).await;
        die(agent);
        until(async || world.metric("phlix_edge_tunnels_open{transport=\"quic\"}").await == "0").await;
        let closed = Instant::now();
        let mut names = [(NAME, Access::Protected), (OPEN, Access::Open)];
        match closed_by {
            "directory" => world.hub.route(OPEN, world.server, Access::Protected),
            "tunnel" => names[1].1 = Access::Protected,
            _ => world.hub.revoke(Selector::Server(world.server)),
        }
        if closed_by == "tunnel" {
            let ticket = world.hub.tunnel_ticket(world.server, &world.server_key, &names);
            let introduction = Introduction::new(&world.hub, &ticket, &world.server_key);
            let _agent = world.introduce(introduction, Serve::Origin(cinema.address)).await.unwrap();
            assert_eq!(reading.end().await, None);
        } else {
            assert_eq!(reading.end().await, None);
        }
        assert!(closed.elapsed() < Duration::from_secs(2), "{closed_by}: {:?}", closed.elapsed());
        assert!(cinema.asked().is_empty());
    }
    // And it goes on where they still say so.
    let world = World::start().await;
    let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
    let mut viewer = world.h2(OPEN).await;
    let mut reading = Reading::begin(&mut viewer, bare(Request::builder().uri("/film").header("host", OPEN))).await;
    reading.to(HOLDS.holds_after).await;
    die(agent);
    let _agent = world.tunnel_to_cinema(&Cinema::shows(GOOD).await).await;
    assert!(reading.end().await.unwrap() == reel());
}

#[tokio::test]
async fn a_ticket_that_has_ended_meanwhile_admits_nobody() {
    let world = World::start().await;
    let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
    let ticket = ViewerTicket { exp: clock::unix_now() + 2, ..world.ticket() };
    let request = Request::builder().uri("/film").header("host", NAME);
    let request = request.header("x-phlix-ticket", world.hub.sign(&ticket));
    let mut viewer = world.h1(NAME).await;
    let mut reading = Reading::begin(&mut viewer, bare(request)).await;
    reading.to(HOLDS.holds_after).await;
    die(agent);
    until(async || clock::unix_now() >= ticket.exp).await;
    let cinema = Cinema::shows(GOOD).await;
    let _agent = world.tunnel_to_cinema(&cinema).await;
    assert_eq!(reading.end().await, None);
    assert!(cinema.asked().is_empty());
}

#[tokio::test]
async fn the_rest_is_no_second_stream_of_its_ticket() {
    let world = World::start().await;
    let agent = world.tunnel_to_cinema(&Cinema::shows(HOLDS).await).await;
    let ticket = world.hub.sign(&ViewerTicket { streams: 1, ..world.ticket() });
    let film = || bare(Request::builder().uri("/film").header("host", NAME).header("x-phlix-ticket", &ticket));
    let mut viewer = world.h2(NAME).await;
    let mut reading = Reading::begin(&mut viewer, film()).await;
    reading.to(HOLDS.holds_after).await;
    die(agent);
    let second = Cinema::shows(HOLDS).await;
    let agent = world.tunnel_to_cinema(&second).await;
    reading.to(2 * HOLDS.holds_after).await;
    // Still one, and not none.
    assert_eq!(viewer.fetch(film()).await.code(), "stream.limit");
    die(agent);
    let _agent = world.tunnel_to_cinema(&Cinema::shows(GOOD).await).await;
    assert!(reading.end().await.unwrap() == reel());
}

#[tokio::test]
async fn a_request_whose_tunnel_dies_before_the_head_is_asked_again_if_it_may_be_made_twice() {
    let world = World::start().await;
    for (method, again) in [("GET", true), ("HEAD", true), ("DELETE", true), ("POST", false), ("PATCH", false)] {
        for mut viewer in world.viewers().await {
            let silent = Cinema::shows(Film { says: Says::Nothing, ..GOOD }).await;
            let agent = world.tunnel_to_cinema(&silent).await;
            let request = bare(world.get("/film").method(method));
            let asking = tokio::spawn(async move { viewer.fetch(request).await });
            until(async || !silent.asked().is_empty()).await;
            let cinema = Cinema::shows(GOOD).await;
            die(agent);
            if !again {
                let answer = asking.await.unwrap();
                assert_eq!((answer.status, answer.code().as_str()), (503, "server.offline"), "{method}");
                continue;
            }
            until(async || world.metric("phlix_edge_tunnels_open{transport=\"quic\"}").await == "0").await;
            let agent = world.tunnel_to_cinema(&cinema).await;
            let answer = asking.await.unwrap();
            assert_eq!(answer.status, 200, "{method}");
            assert_eq!(cinema.asked().len(), 1);
            die(agent);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_not_asked_again_in_time_is_said_to_be_offline() {
    let patience = Duration::from_millis(300);
    let world = World::with(|config| config.timeouts.ask_again = patience).await;
    for mut viewer in world.viewers().await {
        let silent = Cinema::shows(Film { says: Says::Nothing, ..GOOD }).await;
        let agent = world.tunnel_to_cinema(&silent).await;
        let request = bare(world.get("/film"));
        let asking = tokio::spawn(async move { viewer.fetch(request).await });
        until(async || !silent.asked().is_empty()).await;
        let died = Instant::now();
        die(agent);
        let answer = asking.await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (503, "server.offline"));
        assert!(answer.headers.contains_key("retry-after"));
        // Long before a running answer would be given up.
        let waited = died.elapsed();
        assert!(waited >= patience && waited < patience + Duration::from_secs(2), "{waited:?}");
    }
}

#[tokio::test]
async fn a_right_withdrawn_before_the_head_ends_the_wait_too() {
    let world = World::start().await;
    let silent = Cinema::shows(Film { says: Says::Nothing, ..GOOD }).await;
    let agent = world.tunnel_to_cinema(&silent).await;
    let ticket = world.ticket();
    let request = Request::builder().uri("/film").header("host", NAME);
    let request = bare(request.header("x-phlix-ticket", world.hub.sign(&ticket)));
    let mut viewer = world.h1(NAME).await;
    let asking = tokio::spawn(async move { viewer.fetch(request).await });
    until(async || !silent.asked().is_empty()).await;
    die(agent);
    until(async || world.metric("phlix_edge_tunnels_open{transport=\"quic\"}").await == "0").await;
    let withdrawn = Instant::now();
    world.hub.revoke(Selector::Jti(ticket.jti));
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (401, "auth.revoked"));
    assert!(withdrawn.elapsed() < Duration::from_secs(2), "{:?}", withdrawn.elapsed());
}
