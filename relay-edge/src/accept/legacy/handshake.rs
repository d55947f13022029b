//! The WebSocket's opening handshake on a bare connection: one request, read by hand, since nothing else of HTTP is
//! served here and an idle connection must not carry an HTTP server's buffers.

use std::io;

use bytes::{Buf as _, BytesMut};
use phlix_protocol::ws::handshake;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest request, bytes: existing servers send five fields, about 200 bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Most fields of a request.
const MAX_FIELDS: usize = 32;

/// A request, as far as it is read here.
pub(super) type Asked<'a, 'b> = httparse::Request<'a, 'b>;

/// What a door lets in.
pub(super) struct Welcome<T> {
    /// What it has read of the request.
    pub(super) asked: T,
    /// The subprotocol that is agreed on.
    pub(super) subprotocol: Option<&'static str>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Shaken<T> {
    /// A WebSocket; `leftover` was sent right behind the request.
    WebSocket { asked: T, leftover: BytesMut },
    /// Answered with a status.
    Refused,
}

/// A request that is no server's, as a status and a line for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum No {
    Malformed,
    TooLong,
    /// With a line that says what is.
    NotHere(&'static str),
    NotAWebSocket,
    Plain,
}

impl No {
    fn answer(self) -> String {
        let (status, more, text) = match self {
            Self::Malformed => ("400 Bad Request", "", "Not the handshake of a media server.\n"),
            Self::TooLong => ("431 Request Header Fields Too Large", "", "Too long a request.\n"),
            Self::NotHere(text) => ("404 Not Found", "", text),
            Self::NotAWebSocket => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                "This port speaks WebSocket alone.\n",
            ),
            Self::Plain => ("403 Forbidden", "", "This port needs TLS.\n"),
        };
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{more}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
    }
}

/// Reads the request and answers it. `door` says whether its path is one of ours.
pub(super) async fn shake<S, T>(
    stream: &mut S,
    door: impl Fn(&Asked<'_, '_>) -> Result<Welcome<T>, No>,
) -> io::Result<Shaken<T>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::with_capacity(1024);
    let judged = loop {
        match judge(&input, &door) {
            Some(judged) => break judged,
            None if input.len() >= MAX_HEAD => break Err(No::TooLong),
            None => {}
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    match judged {
        Ok(Granted { length, accept, welcome: Welcome { asked, subprotocol } }) => {
            let subprotocol = subprotocol.map(|word| format!("Sec-WebSocket-Protocol: {word}\r\n")).unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
            );
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
            input.advance(length);
            Ok(Shaken::WebSocket { asked, leftover: BytesMut::from(&input[..]) })
        }
        Err(no) => {
            stream.write_all(no.answer().as_bytes()).await?;
            stream.shutdown().await?;
            Ok(Shaken::Refused)
        }
    }
}

/// Tells somebody without TLS that it is needed.
pub(super) async fn refuse_plain<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    // What it said is taken first: a socket that is closed with bytes unread resets, and the line would be lost.
    let mut said = BytesMut::with_capacity(MAX_HEAD);
    stream.read_buf(&mut said).await?;
    stream.write_all(No::Plain.answer().as_bytes()).await?;
    stream.shutdown().await
}

struct Granted<T> {
    /// Bytes of the request.
    length: usize,
    accept: String,
    welcome: Welcome<T>,
}

/// `None`: the request is not whole.
fn judge<T>(input: &[u8], door: impl Fn(&Asked<'_, '_>) -> Result<Welcome<T>, No>) -> Option<Result<Granted<T>, No>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Err(No::TooLong)),
        Err(_) => return Some(Err(No::Malformed)),
    };
    let granted = door(&request).and_then(|welcome| {
        let accept = grant(&request)?;
        Ok(Granted { length, accept, welcome })
    });
    Some(granted)
}

fn grant(request: &httparse::Request<'_, '_>) -> Result<String, No> {
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(No::Malformed);
    }
    let fields = request.headers.iter().map(|field| (field.name, field.value));
    match handshake::check_request(fields, None) {
        Ok(granted) => Ok(granted.accept),
        Err(handshake::HandshakeError::NoUpgrade | handshake::HandshakeError::Version) => Err(No::NotAWebSocket),
        Err(_) => Err(No::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Workerman 5 sends it.
    const GOOD: &str = "GET / HTTP/1.1\r\nHost: hub.example:8802\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// The accept key and the length.
    fn judge(input: &[u8]) -> Option<Result<(String, usize), No>> {
        let judged = super::judge(input, super::super::servers_path)?;
        Some(judged.map(|granted| (granted.accept, granted.length)))
    }

    #[test]
    fn the_handshake_of_existing_servers_is_granted_however_it_is_cut() {
        for cut in 0..GOOD.len() {
            assert_eq!(judge(&GOOD.as_bytes()[..cut]), None, "{cut}");
        }
        assert_eq!(judge(GOOD.as_bytes()), Some(Ok(("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(), GOOD.len()))));
    }

    #[test]
    fn everything_else_is_told_what_it_is() {
        for (from, to, no) in [
            ("GET / ", "GET /client/x ", No::NotHere(super::super::NOT_THE_ROOT)),
            ("GET / ", "POST / ", No::Malformed),
            ("Upgrade: websocket\r\n", "", No::NotAWebSocket),
            ("Version: 13", "Version: 8", No::NotAWebSocket),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", No::Malformed),
            ("HTTP/1.1", "HTTP/1.0", No::Malformed),
            ("GET / HTTP/1.1", "SSH-2.0-x", No::Malformed),
        ] {
            assert_eq!(judge(GOOD.replace(from, to).as_bytes()), Some(Err(no)), "{to}");
        }
        assert!(judge(GOOD.replace("GET / ", "GET /?v=1 ").as_bytes()).is_some_and(|judged| judged.is_ok()));
        let many = GOOD.replace("Host:", &format!("{}Host:", "A: b\r\n".repeat(MAX_FIELDS)));
        assert_eq!(judge(many.as_bytes()), Some(Err(No::TooLong)));
    }
}
