//! An echo on the product's WebSocket codec and nothing else, for conformance cases: as a server, and
//! as a client of a server that sends the cases.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use phlix_protocol::ws::handshake;
use phlix_protocol::ws::{self, Assembled, Assembler, Decoder, Event, Limits, Message, Opcode, Role, Text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The cases send messages of up to 16 MiB (group 9).
const LIMITS: Limits = Limits { frame: 17 << 20, message: 17 << 20 };

/// How long an end waits for the other end to close TCP.
const LINGER: Duration = Duration::from_secs(2);

/// Serves every connection that comes, for as long as the runtime lives.
pub async fn serve() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that breaks is what some cases want.
            tokio::spawn(async move { drop(accept(stream).await) });
        }
    });
    address
}

async fn accept(mut stream: TcpStream) -> io::Result<()> {
    let mut input = BytesMut::new();
    let length = loop {
        if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    };
    let head = input.split_to(length);
    let head = std::str::from_utf8(&head).map_err(io::Error::other)?;
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let granted = handshake::check_request(fields.map(|(name, value)| (name, value.trim().as_bytes())), None)
        .map_err(io::Error::other)?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        granted.accept
    );
    stream.write_all(answer.as_bytes()).await?;
    echo(stream, input, Role::Server, None).await.map(drop)
}

/// Connects to a path and echoes what comes; the first message, where one came.
///
/// # Errors
/// Where the connection breaks or the handshake is refused.
pub async fn visit(server: SocketAddr, path: &str) -> io::Result<Option<Bytes>> {
    visit_up_to(server, path, None).await
}

/// The same for a server that tells one thing and is not answered.
///
/// # Errors
/// Where the connection breaks or the handshake is refused.
pub async fn ask(server: SocketAddr, path: &str) -> io::Result<Option<Bytes>> {
    visit_up_to(server, path, Some(0)).await
}

async fn visit_up_to(server: SocketAddr, path: &str, echoed: Option<usize>) -> io::Result<Option<Bytes>> {
    let mut stream = TcpStream::connect(server).await?;
    let key = handshake::key(*uuid::Uuid::new_v4().as_bytes());
    let request = handshake::request(path, &server.to_string(), &key, None, &[]).map_err(io::Error::other)?;
    stream.write_all(&request).await?;
    let mut input = BytesMut::new();
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = handshake::check_response(&input, &key, None).map_err(io::Error::other)? {
            drop(input.split_to(length));
            return echo(stream, input, Role::Client, echoed).await;
        }
    }
}

/// Echoes until the connection closes, or until `at_most` messages were; the first message.
async fn echo(
    mut stream: TcpStream,
    mut input: BytesMut,
    role: Role,
    at_most: Option<usize>,
) -> io::Result<Option<Bytes>> {
    let mut decoder = Decoder::new(role, LIMITS, Text::Checked);
    let (mut assembler, mut out) = (Assembler::new(), BytesMut::new());
    let (mut first, mut echoed) = (None, 0);
    // RFC 6455 s.5.3: a client's masking key is fresh for each frame.
    let key = || match role {
        Role::Client => uuid::Uuid::new_v4().as_bytes()[..4].try_into().ok(),
        Role::Server => None,
    };
    let ended = loop {
        let event = match decoder.decode(&mut input) {
            Ok(Some(event)) => event,
            Ok(None) => {
                stream.write_all_buf(&mut out).await?;
                if stream.read_buf(&mut input).await? == 0 {
                    break first;
                }
                continue;
            }
            Err(e) => {
                ws::close(&mut out, Some(e.close_code()), &e.to_string(), key());
                break first;
            }
        };
        match assembler.push(event) {
            Assembled::Message(Message { kind, payload }) => {
                first.get_or_insert_with(|| Bytes::copy_from_slice(&payload));
                if at_most.is_none_or(|most| echoed < most) {
                    ws::frame(&mut out, true, kind.into(), &payload, key());
                    echoed += 1;
                }
            }
            Assembled::Other(Event::Ping(payload)) => ws::control(&mut out, Opcode::Pong, &payload, key()),
            Assembled::Other(Event::Close(closing)) => {
                ws::close(&mut out, closing.reply(), "", key());
                break first;
            }
            Assembled::Other(_) | Assembled::NotYet => {}
        }
    };
    stream.write_all_buf(&mut out).await?;
    // RFC 6455 s.7.1.1: the server closes TCP first; what still comes is read, else a reset would eat
    // the close frame.
    if role == Role::Server {
        stream.shutdown().await?;
    }
    let rest = async { while matches!(stream.read(&mut [0; 4096]).await, Ok(n) if n > 0) {} };
    // Who never closes is left.
    let _ = tokio::time::timeout(LINGER, rest).await;
    Ok(ended)
}
