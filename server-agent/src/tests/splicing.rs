//! Bytes between viewers and the origin.

use std::time::Instant;

use phlix_link::{ReadError, RecvStream, SendStream, WriteError};
use phlix_protocol::native::stream::{ResetCode, StreamHeader, StreamKind, StreamStatus};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::edge::{status_of, to_end};
use super::*;

const NAME: &str = "a.hub.localhost";

/// An origin's end of a connection and a viewer's stream that is spliced to it.
struct Spliced {
    world: World,
    socket: TcpStream,
    send: SendStream,
    receive: RecvStream,
    /// Kept open: health looks would find the origin down.
    _origin: TcpListener,
}

impl Spliced {
    async fn start(transport: Transport) -> Self {
        let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = World::start(transport, &format!("http://{}", origin.local_addr().unwrap())).await;
        let (mut send, mut receive) = world.tunnel.open(NAME, Some(world.hub.viewer_ticket(NAME))).await;
        send.write_all(b"?").await.unwrap();
        let socket = asked(&origin).await;
        assert_eq!(soon(status_of(&mut receive)).await, StreamStatus::Connected.byte());
        Self { world, socket, send, receive, _origin: origin }
    }
}

/// The next connection that says something, less its first byte. A look at the origin's health says nothing.
async fn asked(origin: &TcpListener) -> TcpStream {
    soon(async {
        loop {
            let (mut socket, _) = origin.accept().await.unwrap();
            if socket.read_u8().await.is_ok() {
                return socket;
            }
        }
    })
    .await
}

/// Runs something that must be felt within a tenth of a second. A busy machine may be late twice, not three times.
async fn within_a_tenth_of_a_second(measure: impl AsyncFn() -> Duration) {
    let mut took = Duration::MAX;
    for _ in 0..3 {
        took = took.min(measure().await);
        if took < Duration::from_millis(100) {
            return;
        }
    }
    panic!("at best after {took:?}");
}

/// The status of a stream to an origin, with this header or one for a protected name.
async fn status_at(world: &World, header: Option<StreamHeader>) -> u8 {
    let header = header.unwrap_or_else(|| StreamHeader::http(hub::host(NAME), Some(world.hub.viewer_ticket(NAME))));
    let (_send, mut receive) = world.tunnel.open_with(&header).await;
    let status = soon(status_of(&mut receive)).await;
    if status != 0 {
        assert!(soon(to_end(&mut receive, 10)).await.unwrap().is_empty(), "after a refusal nothing follows");
    }
    status
}

/// Why a write failed.
fn why(error: &std::io::Error) -> WriteError {
    error.get_ref().unwrap().downcast_ref::<WriteError>().unwrap().clone()
}

/// Bytes that look like nothing, but always the same.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..length / 8)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()
        })
        .collect()
}

async fn a_claimed_server_answers_a_viewer_through_its_tunnel(transport: Transport) {
    let mut spliced = Spliced::start(transport).await;
    spliced.send.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut asked = [0; 18];
    soon(spliced.socket.read_exact(&mut asked)).await.unwrap();
    assert_eq!(&asked, b"GET / HTTP/1.1\r\n\r\n");
    spliced.socket.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    soon(spliced.receive.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"hello");
    spliced.world.agent.stopped().await.unwrap();
}

async fn many_bytes_arrive_whole_both_ways_at_once(transport: Transport) {
    const LENGTH: usize = 64 * 1024 * 1024;
    let Spliced { world, socket, mut send, mut receive, _origin } = Spliced::start(transport).await;
    let bytes = pattern(LENGTH);
    let digest = Sha256::digest(&bytes);
    let (up, down) = (bytes.clone(), bytes);
    let uploading = tokio::spawn(async move {
        send.write_all(&up).await.unwrap();
        send.finish().unwrap();
    });
    let (mut from_agent, mut to_agent) = socket.into_split();
    let answering = tokio::spawn(async move { to_agent.write_all(&down).await.unwrap() });
    let taking = tokio::spawn(async move {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 65_536];
        loop {
            match from_agent.read(&mut buffer).await.unwrap() {
                0 => return hash.finalize(),
                read => hash.update(&buffer[..read]),
            }
        }
    });
    let patience = Duration::from_secs(60);
    let answer = tokio::time::timeout(patience, to_end(&mut receive, LENGTH + 1)).await.unwrap().unwrap();
    assert_eq!(Sha256::digest(&answer), digest);
    assert_eq!(tokio::time::timeout(patience, taking).await.unwrap().unwrap(), digest);
    uploading.await.unwrap();
    answering.await.unwrap();
    world.agent.stopped().await.unwrap();
}

async fn a_half_close_is_passed_on_each_way_and_the_other_half_lives(transport: Transport) {
    let mut spliced = Spliced::start(transport).await;
    spliced.send.finish().unwrap();
    let mut rest = Vec::new();
    soon(spliced.socket.read_to_end(&mut rest)).await.unwrap();
    spliced.socket.write_all(b"still here").await.unwrap();
    spliced.socket.shutdown().await.unwrap();
    assert_eq!(soon(to_end(&mut spliced.receive, 100)).await.unwrap(), b"still here");

    let mut spliced = Spliced::start(transport).await;
    spliced.socket.shutdown().await.unwrap();
    assert!(soon(to_end(&mut spliced.receive, 100)).await.unwrap().is_empty());
    spliced.send.write_all(b"late").await.unwrap();
    spliced.send.finish().unwrap();
    soon(spliced.socket.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"late");
}

async fn a_viewer_who_leaves_is_felt_at_the_origin_within_a_tenth_of_a_second(transport: Transport) {
    for only_the_answer in [false, true] {
        within_a_tenth_of_a_second(async || {
            let mut spliced = Spliced::start(transport).await;
            let began = Instant::now();
            spliced.receive.stop(ResetCode::CancelledByViewer);
            if !only_the_answer {
                spliced.send.reset(ResetCode::CancelledByViewer);
            }
            let felt = soon(spliced.socket.read_u8()).await.unwrap_err();
            assert_eq!(felt.kind(), std::io::ErrorKind::ConnectionReset);
            began.elapsed()
        })
        .await;
    }
}

async fn an_upload_that_is_cut_off_is_no_clean_end_for_the_origin(transport: Transport) {
    let mut spliced = Spliced::start(transport).await;
    spliced.send.write_all(b"half").await.unwrap();
    soon(spliced.socket.read_exact(&mut [0; 4])).await.unwrap();
    spliced.send.reset(ResetCode::CancelledByViewer);
    let felt = soon(spliced.socket.read_u8()).await.unwrap_err();
    assert_eq!(felt.kind(), std::io::ErrorKind::ConnectionReset);
}

async fn an_origin_that_breaks_off_is_a_reset_for_the_viewer_within_a_tenth_of_a_second(transport: Transport) {
    within_a_tenth_of_a_second(async || {
        let mut spliced = Spliced::start(transport).await;
        spliced.socket.write_all(b"half").await.unwrap();
        soon(spliced.receive.read_exact(&mut [0; 4])).await.unwrap();
        let began = Instant::now();
        spliced.socket.set_zero_linger().unwrap();
        drop(spliced.socket);
        let felt = soon(to_end(&mut spliced.receive, 10)).await.unwrap_err();
        let code = ResetCode::OriginFailed.code().into();
        assert_eq!(felt, ReadError::Reset(code));
        began.elapsed()
    })
    .await;
}

async fn a_pooled_connection_that_is_let_go_ends_in_order_at_the_origin(transport: Transport) {
    let mut spliced = Spliced::start(transport).await;
    // As an edge does it that drops an idle connection.
    spliced.send.finish().unwrap();
    spliced.receive.let_go();
    let mut rest = Vec::new();
    soon(spliced.socket.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

async fn a_lost_tunnel_frees_the_origin_and_no_stream_is_left(transport: Transport) {
    let mut spliced = Spliced::start(transport).await;
    spliced.world.tunnel.close(0);
    assert!(soon(spliced.socket.read_u8()).await.is_err());
    spliced.world.agent.connected().await;
    spliced.world.agent.stopped().await.unwrap();
}

/// How much an upload may have running ahead of an origin that does not read: the stream's window, what waits in the
/// splice, and what two kernels hold (the sockets of loopback grow to about 6 MiB).
const AHEAD: usize = 16 * 1024 * 1024;

async fn an_origin_that_stops_reading_stops_the_upload(transport: Transport) {
    let mut spliced = Spliced::start(transport).await;
    let piece = vec![7; 65_536];
    let mut sent = 0;
    // Writes until nothing is taken for a while.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), spliced.send.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent <= AHEAD, "the agent takes bytes that nobody reads");
    }
    // Nothing of it was lost: the origin reads on and gets all.
    let Spliced { mut socket, mut send, .. } = spliced;
    send.finish().unwrap();
    let mut taken = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        match soon(socket.read(&mut buffer)).await.unwrap() {
            0 => break,
            read => taken += read,
        }
    }
    assert_eq!(taken, sent);
}

async fn a_viewer_who_stops_reading_stops_the_origin_and_no_other_viewer(transport: Transport) {
    let spliced = Spliced::start(transport).await;
    let Spliced { world, socket, send: _send, receive: _stalled, _origin } = spliced;
    let (_from, mut to_agent) = socket.into_split();
    let flooding = tokio::spawn(async move {
        let piece = vec![7; 65_536];
        let mut sent = 0;
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), to_agent.write(&piece)).await {
            sent += written.unwrap();
        }
        sent
    });
    let sent = soon(flooding).await.unwrap();
    assert!(sent <= AHEAD, "{sent}");
    let (mut send, mut receive) = world.tunnel.open(NAME, Some(world.hub.viewer_ticket(NAME))).await;
    send.write_all(b"?").await.unwrap();
    let mut socket = asked(&_origin).await;
    socket.write_all(b"quick").await.unwrap();
    assert_eq!(soon(status_of(&mut receive)).await, 0);
    soon(receive.read_exact(&mut [0; 5])).await.unwrap();
}

async fn many_uploads_that_nobody_takes_make_room_for_others(transport: Transport) {
    /// More than may stall at once.
    const UPLOADS: usize = 20;
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start_with(transport, &format!("http://{}", origin.local_addr().unwrap()), |config| {
        config.timings.stalled_upload = Duration::from_millis(200);
    })
    .await;
    let mut uploads = tokio::task::JoinSet::new();
    let mut deaf = Vec::new();
    for _ in 0..UPLOADS {
        let (mut send, receive) = world.tunnel.open(NAME, Some(world.hub.viewer_ticket(NAME))).await;
        send.write_all(b"?").await.unwrap();
        deaf.push(asked(&origin).await);
        uploads.spawn(async move {
            let _answer = receive;
            loop {
                if let Err(error) = send.write(&[0; 65_536]).await {
                    return error;
                }
            }
        });
    }
    for _ in 16..UPLOADS {
        let stopped = soon(uploads.join_next()).await.unwrap().unwrap();
        assert_eq!(why(&stopped), WriteError::Stopped(ResetCode::Stalled.code().into()));
    }
    // The others may wait on, and somebody else gets through.
    let (mut send, mut receive) = world.tunnel.open(NAME, Some(world.hub.viewer_ticket(NAME))).await;
    send.write_all(b"?").await.unwrap();
    asked(&origin).await.write_all(b"!").await.unwrap();
    assert_eq!(soon(status_of(&mut receive)).await, 0);
    soon(receive.read_exact(&mut [0; 1])).await.unwrap();
    assert_eq!(uploads.len(), 16);
    drop(deaf);
    world.agent.stopped().await.unwrap();
}

async fn an_origin_that_refuses_the_rest_of_an_upload_may_still_answer(transport: Transport) {
    let mut spliced = Spliced::start(transport).await;
    // The answer first, then the end without reading the body: the kernel resets what is sent after it.
    spliced.socket.write_all(b"413").await.unwrap();
    soon(spliced.receive.read_exact(&mut [0; 3])).await.unwrap();
    drop(spliced.socket);
    let cut = soon(async {
        loop {
            match spliced.send.write(&[0; 65_536]).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(why(&cut), WriteError::Stopped(ResetCode::OriginFailed.code().into()));
}

async fn what_is_wrong_with_the_origin_is_told_in_one_byte(transport: Transport) {
    // Nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::start(transport, &format!("http://{free}")).await;
    assert_eq!(status_at(&world, None).await, StreamStatus::OriginRefused.byte());
    world.agent.stopped().await.unwrap();

    let world = World::start(transport, "unix:///nonexistent/origin.sock").await;
    assert_eq!(status_at(&world, None).await, StreamStatus::OriginUnreachable.byte());
    world.agent.stopped().await.unwrap();

    // Speaks no TLS.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = plain.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let world = World::start(transport, &format!("https://localhost:{port}")).await;
    assert_eq!(status_at(&world, None).await, StreamStatus::OriginTls.byte());
    world.agent.stopped().await.unwrap();

    // Accepts the connection and then says nothing: TLS never comes.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = mute.local_addr().unwrap().port();
    let world = World::start_with(transport, &format!("https://localhost:{port}"), |config| {
        config.timings.origin_connect = Duration::from_millis(100);
    })
    .await;
    assert_eq!(status_at(&world, None).await, StreamStatus::TimedOut.byte());
    world.agent.stopped().await.unwrap();
}

async fn an_origin_that_comes_back_is_noticed_and_reported(transport: Transport) {
    use phlix_protocol::native::control::Message;
    let reported = |wanted: bool| {
        move |message| match message {
            Message::Report(report) if report.origin_up == wanted => Some(()),
            _ => None,
        }
    };
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::start(transport, &format!("http://{address}")).await;
    soon(world.tunnel.hear_until(reported(false))).await;
    let origin = TcpListener::bind(address).await.unwrap();
    world.agent.event(|event| matches!(event, Event::OriginUp).then_some(())).await;
    soon(world.tunnel.hear_until(reported(true))).await;
    drop(origin);
    world.agent.stopped().await.unwrap();
}

async fn streams_that_may_not_pass_are_told_so(transport: Transport) {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start(transport, &format!("http://{}", origin.local_addr().unwrap())).await;
    let header = |name: &str, ticket| StreamHeader::http(hub::host(name), ticket);
    let not_allowed = StreamStatus::NotAllowed.byte();
    let good = || Some(world.hub.viewer_ticket(NAME));
    assert_eq!(status_at(&world, Some(header(NAME, None))).await, not_allowed);
    assert_eq!(status_at(&world, Some(header("other.hub.localhost", good()))).await, not_allowed);
    assert_eq!(status_at(&world, Some(header(NAME, Some("x.y.z".into())))).await, not_allowed);
    let tcp = StreamKind::Tcp { origin: "ssh".into(), peer: "192.0.2.1:1".into() };
    assert_eq!(status_at(&world, Some(StreamHeader { kind: tcp, ..header(NAME, good()) })).await, not_allowed);
    assert_eq!(status_at(&world, Some(header("open.hub.localhost", None))).await, 0);
    assert_eq!(status_at(&world, Some(header(NAME, good()))).await, 0);
    world.agent.stopped().await.unwrap();
}

async fn a_header_that_is_none_resets_the_stream_and_hurts_nobody(transport: Transport) {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start_with(transport, &format!("http://{}", origin.local_addr().unwrap()), |config| {
        config.timings.stream_header = Duration::from_millis(100);
    })
    .await;
    let code = ResetCode::Protocol.code().into();
    for bytes in [&b"\xff\xff"[..], b"\0\x02{}", b"\0\x05{\"v\"", b"\0"] {
        let (mut send, mut receive) = world.tunnel.link.open().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let felt = soon(to_end(&mut receive, 10)).await.unwrap_err();
        assert_eq!(felt, ReadError::Reset(code), "{bytes:?}");
    }
    assert_eq!(status_at(&world, None).await, 0);
    world.agent.stopped().await.unwrap();
}

async fn a_unix_socket_is_an_origin_too(transport: Transport) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("origin.sock");
    let origin = UnixListener::bind(&path).unwrap();
    let world = World::start(transport, &format!("unix://{}", path.display())).await;
    let (mut send, mut receive) = world.tunnel.open(NAME, Some(world.hub.viewer_ticket(NAME))).await;
    send.write_all(b"?").await.unwrap();
    let mut socket = soon(async {
        loop {
            let (mut socket, _) = origin.accept().await.unwrap();
            if socket.read_u8().await.is_ok() {
                return socket;
            }
        }
    })
    .await;
    socket.write_all(b"!").await.unwrap();
    drop(socket);
    assert_eq!(soon(status_of(&mut receive)).await, 0);
    assert_eq!(soon(to_end(&mut receive, 10)).await.unwrap(), b"!");
    world.agent.stopped().await.unwrap();
}

async fn an_https_origin_is_verified_unless_its_owner_says_otherwise(transport: Transport) {
    let folder = tempfile::tempdir().unwrap();
    let certs =
        phlix_certs::dev::DevCerts::load_or_issue(folder.path(), "x.localhost", &[], std::time::SystemTime::now())
            .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(crate::trust::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certs.key())));
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(socket).await else { return };
                let mut asked = [0; 4];
                if tls.read_exact(&mut asked).await.is_ok() {
                    tls.write_all(&asked).await.unwrap();
                    tls.shutdown().await.unwrap();
                }
            });
        }
    });
    let world = World::start(transport, &url).await;
    assert_eq!(status_at(&world, None).await, StreamStatus::OriginTls.byte());
    world.agent.stopped().await.unwrap();

    for trust in [crate::OriginTls::CaFile(certs.ca_file().to_owned()), crate::OriginTls::Unverified] {
        let world = World::start_with(transport, &url, |config| config.origin_tls = trust).await;
        let (mut send, mut receive) = world.tunnel.open(NAME, Some(world.hub.viewer_ticket(NAME))).await;
        send.write_all(b"ping").await.unwrap();
        assert_eq!(soon(status_of(&mut receive)).await, 0);
        assert_eq!(soon(to_end(&mut receive, 10)).await.unwrap(), b"ping");
        world.agent.stopped().await.unwrap();
    }
}

over_both!(
    a_claimed_server_answers_a_viewer_through_its_tunnel,
    many_bytes_arrive_whole_both_ways_at_once,
    a_half_close_is_passed_on_each_way_and_the_other_half_lives,
    a_viewer_who_leaves_is_felt_at_the_origin_within_a_tenth_of_a_second,
    an_upload_that_is_cut_off_is_no_clean_end_for_the_origin,
    an_origin_that_breaks_off_is_a_reset_for_the_viewer_within_a_tenth_of_a_second,
    a_pooled_connection_that_is_let_go_ends_in_order_at_the_origin,
    a_lost_tunnel_frees_the_origin_and_no_stream_is_left,
    an_origin_that_stops_reading_stops_the_upload,
    a_viewer_who_stops_reading_stops_the_origin_and_no_other_viewer,
    many_uploads_that_nobody_takes_make_room_for_others,
    an_origin_that_refuses_the_rest_of_an_upload_may_still_answer,
    what_is_wrong_with_the_origin_is_told_in_one_byte,
    an_origin_that_comes_back_is_noticed_and_reported,
    streams_that_may_not_pass_are_told_so,
    a_header_that_is_none_resets_the_stream_and_hurts_nobody,
    a_unix_socket_is_an_origin_too,
    an_https_origin_is_verified_unless_its_owner_says_otherwise,
);
