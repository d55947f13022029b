//! Both ends over a pipe in memory, and over TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use phlix_protocol::native::close;
use phlix_protocol::native::mux::INITIAL_CREDIT;
use phlix_protocol::native::stream::ResetCode;
use phlix_protocol::ws::{self, Opcode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

use crate::tls;
use crate::{End, Link, Priority, ReadError, RecvStream, SendStream, Side, Stopped, Transport, WriteError};

/// Each ends well before this, or hangs.
const SOON: Duration = Duration::from_secs(20);

fn masks() -> impl FnMut() -> [u8; 4] + Send + Unpin + 'static {
    let mut last = 1_u32;
    move || {
        last = last.wrapping_mul(0x9e37_79b1).wrapping_add(7);
        last.to_be_bytes()
    }
}

fn link<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: S, side: Side) -> Link {
    Link::websocket(io, side, BytesMut::new(), None, masks())
}

fn pair(room: usize) -> (Link, Link) {
    let (a, b) = duplex(room);
    (link(a, Side::Agent), link(b, Side::Edge))
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it comes to an end")
}

/// A stream that the edge opened, at the edge and at the agent; its first word was read.
async fn stream(agent: &Link, edge: &Link) -> ((SendStream, RecvStream), (SendStream, RecvStream)) {
    let mut here = edge.open().await.expect("open");
    here.0.write_all(b"header").await.expect("open");
    let mut there = agent.accept().await.expect("open");
    let mut word = [0; 6];
    there.1.read_exact(&mut word).await.expect("the header");
    assert_eq!(&word, b"header");
    (here, there)
}

fn body(length: usize) -> Bytes {
    (0..length).map(|at| (at ^ (at >> 9)) as u8).collect::<Vec<_>>().into()
}

async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(bytes) = recv.read_chunk(usize::MAX).await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// A control word there and back, then eight downloads and eight uploads at once.
async fn exchange(agent: Link, edge: Link) {
    assert_eq!(agent.transport(), Transport::WebSocket);
    let (mut agent_says, mut agent_hears) = agent.open_control().await.expect("open");
    let (mut edge_says, mut edge_hears) = edge.accept_control().await.expect("open");
    agent_says.write_all(b"hello").await.expect("open");
    let mut word = [0; 5];
    edge_hears.read_exact(&mut word).await.expect("a word");
    assert_eq!(&word, b"hello");
    edge_says.write_all(b"hi").await.expect("open");
    agent_hears.read_exact(&mut word[..2]).await.expect("a word");

    let wanted = body(1_500_000);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (here, there) = stream(&agent, &edge).await;
        for (mut send, mut recv) in [here, there] {
            let wanted = wanted.clone();
            tasks.spawn(async move {
                let sent = wanted.clone();
                let writing = async move {
                    send.set_priority(Priority::Bulk);
                    send.write_chunk(sent).await.expect("open");
                    send.finish().expect("open");
                    assert_eq!(send.stopped().await, Stopped::Delivered);
                };
                let (got, ()) = tokio::join!(read_all(&mut recv), writing);
                assert!(got.expect("whole") == wanted);
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no failure");
    }
}

#[tokio::test]
async fn many_streams_go_both_ways_at_once() {
    let (agent, edge) = pair(100_000);
    soon(exchange(agent, edge)).await;
}

#[tokio::test]
async fn a_narrow_pipe_stops_nothing() {
    let (agent, edge) = pair(1_000);
    soon(exchange(agent, edge)).await;
}

#[tokio::test]
async fn many_streams_go_over_tls_on_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (server, client) = tls::pair(&[]);
    let accepting = async {
        let (socket, _) = listener.accept().await.expect("a client");
        tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(socket).await.expect("a handshake")
    };
    let connecting = async {
        let socket = tokio::net::TcpStream::connect(address).await.expect("a listener");
        let name = "edge.test".try_into().expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, socket).await.expect("a handshake")
    };
    let (theirs, ours) = soon(async { tokio::join!(accepting, connecting) }).await;
    let (edge, agent) = (link(theirs, Side::Edge), link(ours, Side::Agent));
    soon(exchange(agent.clone(), edge.clone())).await;
    agent.close(close::REPLACED, "a newer one");
    soon(agent.flushed()).await;
    assert_eq!(soon(edge.closed()).await, End::Peer { code: close::REPLACED, reason: "a newer one".into() });
}

#[tokio::test]
async fn a_close_carries_code_and_reason_after_the_last_control_words() {
    let (agent, edge) = pair(10_000);
    let (mut say, _) = edge.accept_control().await.expect("open");
    let (_, mut hear) = agent.open_control().await.expect("open");
    let (mut here, mut there) = stream(&agent, &edge).await;
    say.write_all(b"refused").await.expect("open");
    edge.close(close::REFUSED, "no such server");
    assert_eq!(edge.close_reason(), Some(End::Local));
    soon(edge.flushed()).await;
    let end = End::Peer { code: close::REFUSED, reason: "no such server".into() };
    assert_eq!(soon(agent.closed()).await, end);
    let mut word = [0; 7];
    hear.read_exact(&mut word).await.expect("said before the close");
    assert_eq!(&word, b"refused");
    assert_eq!(there.1.read_chunk(9).await, Err(ReadError::Lost(end.clone())));
    assert_eq!(there.0.write_all(b"x").await, Err(WriteError::Lost(end.clone())));
    assert_eq!(here.0.write_all(b"x").await, Err(WriteError::Lost(End::Local)));
    assert_eq!(here.0.stopped().await, Stopped::Lost);
    assert_eq!(agent.accept().await.expect_err("it has ended"), end);
}

#[tokio::test]
async fn the_last_holder_ends_the_connection() {
    let (agent, edge) = pair(10_000);
    let (here, there) = stream(&agent, &edge).await;
    drop((edge, here.1));
    let mut send = here.0;
    let mut recv = there.1;
    send.write_all(b"still open").await.expect("a stream is held");
    send.finish().expect("open");
    assert_eq!(read_all(&mut recv).await.expect("whole"), b"still open");
    drop(send);
    assert_eq!(soon(agent.closed()).await, End::Peer { code: close::BYE, reason: String::new() });
}

#[tokio::test]
async fn a_reset_is_heard_at_the_reader_and_a_stop_at_the_writer() {
    let (agent, edge) = pair(10_000);
    let ((mut send, mut recv), (mut origin_send, mut origin_recv)) = stream(&agent, &edge).await;
    let stopped = origin_send.stopped();
    send.reset(ResetCode::CancelledByViewer);
    recv.stop(ResetCode::Stalled);
    let code = u32::from(ResetCode::CancelledByViewer.code());
    assert_eq!(soon(origin_recv.read_chunk(9)).await, Err(ReadError::Reset(code)));
    let code = u32::from(ResetCode::Stalled.code());
    assert_eq!(soon(stopped).await, Stopped::Asked(code));
    assert_eq!(origin_send.write_all(b"x").await, Err(WriteError::Stopped(code)));
}

#[tokio::test]
async fn a_dropped_half_says_so() {
    let (agent, edge) = pair(10_000);
    let ((send, recv), (origin_send, mut origin_recv)) = stream(&agent, &edge).await;
    drop(send);
    assert_eq!(soon(read_all(&mut origin_recv)).await, Ok(Vec::new()));
    let stopped = origin_send.stopped();
    drop(recv);
    assert_eq!(soon(stopped).await, Stopped::Asked(0));
}

#[tokio::test]
async fn sixty_four_readers_who_do_not_read_stall_nobody() {
    let (agent, edge) = pair(50_000);
    let mut stuck = Vec::new();
    for _ in 0..64 {
        let ((_, recv), (mut send, _)) = stream(&agent, &edge).await;
        let writer = tokio::spawn(async move { send.write_chunk(body(4 * INITIAL_CREDIT as usize)).await });
        stuck.push((recv, writer));
    }
    let ((_send, mut recv), (mut send, _recv)) = stream(&agent, &edge).await;
    let wanted = body(2_000_000);
    let sent = wanted.clone();
    let writing = async move {
        send.write_chunk(sent).await.expect("open");
        send.finish().expect("open");
        send
    };
    let (got, _send) = soon(async { tokio::join!(read_all(&mut recv), writing) }).await;
    assert!(got.expect("whole") == wanted);
    assert!(stuck.iter().all(|(_, writer)| !writer.is_finished()));
}

/// An edge whose agent is this test.
fn strange_agent() -> (Link, DuplexStream) {
    let (a, b) = duplex(1 << 20);
    (link(b, Side::Edge), a)
}

/// Reads to the end of the connection; the close frame's code and reason.
async fn last_words(mut io: DuplexStream) -> (Option<u32>, String) {
    let mut all = BytesMut::new();
    while io.read_buf(&mut all).await.expect("open") > 0 {}
    let limits = ws::Limits { frame: 1 << 20, message: 1 << 20 };
    let mut decoder = ws::Decoder::new(ws::Role::Client, limits, ws::Text::Checked);
    while let Some(event) = decoder.decode(&mut all).expect("well formed") {
        if let ws::Event::Close(closing) = event {
            return (closing.code.and_then(ws::CloseCode::as_private), closing.reason);
        }
    }
    (None, String::new())
}

#[tokio::test]
async fn a_peer_that_breaks_a_rule_is_told_which() {
    for (payload, opcode, reason) in [
        (&[0, 0, 0, 1, 1, 0, 0, 0][..], Opcode::Binary, "too many streams"),
        (&[0, 0, 0, 7, 2, 0, 0, 1, 9], Opcode::Binary, "data for streams that are not open"),
        (&[0, 0, 0, 0], Opcode::Binary, "message ends within a frame"),
        (b"hello", Opcode::Text, "text message"),
        (b"hello", Opcode::Continuation, "continuation of no message"),
    ] {
        let (edge, mut io) = strange_agent();
        let mut wire = BytesMut::new();
        ws::frame(&mut wire, true, opcode, payload, Some([1, 2, 3, 4]));
        io.write_all(&wire).await.expect("open");
        assert_eq!(soon(edge.closed()).await, End::Broken(reason.to_owned()));
        assert_eq!(soon(last_words(io)).await, (Some(close::PROTOCOL), reason.to_owned()));
    }
}

#[tokio::test]
async fn a_socket_that_breaks_off_is_lost() {
    let (edge, io) = strange_agent();
    let (mut send, _recv) = edge.open().await.expect("open");
    drop(io);
    assert!(matches!(soon(edge.closed()).await, End::Lost(_)));
    assert!(matches!(send.write_all(b"x").await, Err(WriteError::Lost(_))));
    soon(edge.flushed()).await;
}

#[tokio::test]
async fn a_ping_of_the_websocket_is_answered_with_its_payload() {
    let (_edge, mut io) = strange_agent();
    let mut wire = BytesMut::new();
    ws::control(&mut wire, Opcode::Ping, b"are you there", Some([9; 4]));
    io.write_all(&wire).await.expect("open");
    let wanted = b"\x8a\x0dare you there";
    let mut all = BytesMut::new();
    soon(async {
        while !all.windows(wanted.len()).any(|some| some == wanted) {
            assert!(io.read_buf(&mut all).await.expect("open") > 0);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_falls_silent_is_given_up_after_15_s() {
    let (edge, io) = strange_agent();
    let start = tokio::time::Instant::now();
    assert_eq!(edge.closed().await, End::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 15);
    assert_eq!(last_words(io).await.0, Some(close::DEAD_PATH));
}

#[tokio::test(start_paused = true)]
async fn an_idle_pair_lives_on_pings_and_knows_its_round_trip() {
    let (agent, edge) = pair(10_000);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((agent.close_reason(), edge.close_reason()), (None, None));
    assert!(edge.rtt() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn what_arrived_shows_in_the_sample() {
    let (agent, edge) = pair(10_000);
    let (here, mut there) = stream(&agent, &edge).await;
    there.0.write_all(&[0; 5000]).await.expect("open");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sample = agent.sample();
    assert_eq!((sample.outstanding, sample.progress), (false, 5000));
    drop(here);
}

#[tokio::test]
async fn bytes_that_came_with_the_handshake_count() {
    let (a, b) = duplex(10_000);
    let mut wire = BytesMut::new();
    ws::frame(&mut wire, true, Opcode::Binary, &[0, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'], Some([5; 4]));
    let edge = Link::websocket(b, Side::Edge, wire, Some([3; 32]), masks());
    assert_eq!(edge.exporter(), Some([3; 32]));
    let (_send, mut recv) = edge.accept_control().await.expect("open");
    let mut word = [0; 2];
    soon(recv.read_exact(&mut word)).await.expect("a word");
    assert_eq!(&word, b"hi");
    drop(a);
}
