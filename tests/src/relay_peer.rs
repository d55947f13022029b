//! A peer of the relay ports (8802, 8803) that sends what a story wants sent, and tells every message and the
//! very end: no WebSocket library would.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

/// What came from the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// A whole message; text or binary, which mean the same here.
    Message(Vec<u8>),
    /// A close frame.
    Close(u16),
    /// The end of TCP.
    End,
}

/// One connection after its 101.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    /// The answer to the upgrade.
    pub head: String,
    /// Bytes of frames in the order in which they came.
    pub bytes: Vec<u8>,
}

impl Peer {
    /// Upgrades at a relay port, with the five headers of a media server and what else a story says.
    ///
    /// # Errors
    /// The whole answer, where it is no 101.
    pub async fn connect(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let mut request = format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            let read = timeout(LIMIT, stream.read(&mut byte)).await.expect("the port answers an upgrade");
            if !matches!(read, Ok(1)) {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(head);
        }
        assert!(head.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        Ok(Self { stream, head, bytes: Vec::new() })
    }

    /// At the tunnel port, as a media server.
    pub async fn server(address: SocketAddr) -> Self {
        Self::connect(address, "/", &[]).await.unwrap()
    }

    /// Sends a message with the text opcode and a mask of zeroes.
    pub async fn send(&mut self, message: &[u8]) {
        // Whoever was refused may find the connection closed.
        let _ = self.try_send(message).await;
    }

    /// The same.
    ///
    /// # Errors
    /// Where the connection is over.
    pub async fn try_send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x81];
        match message.len() {
            n @ 0..=125 => frame.push(0x80 | u8::try_from(n).unwrap()),
            n @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
            }
            n => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(message);
        self.stream.write_all(&frame).await
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Says HELLO and waits for the ack.
    pub async fn hello(&mut self, jwt: &str, server: &str) -> Vec<u8> {
        self.send(hello(jwt, server).as_bytes()).await;
        match self.next().await {
            Came::Message(ack) => ack,
            other => panic!("no ack: {other:?}"),
        }
    }

    /// What comes next. Pings are answered; panics where nothing comes.
    pub async fn next(&mut self) -> Came {
        timeout(LIMIT, self.read()).await.expect("something comes").unwrap_or(Came::End)
    }

    /// Whether nothing comes for so long.
    pub async fn quiet(&mut self, time: Duration) -> bool {
        timeout(time, self.read()).await.is_err()
    }

    /// All that comes until the end.
    pub async fn rest(&mut self) -> Vec<Came> {
        let mut all = Vec::new();
        loop {
            let came = self.next().await;
            let ended = came == Came::End;
            all.push(came);
            if ended {
                return all;
            }
        }
    }

    async fn read(&mut self) -> io::Result<Came> {
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).await?;
            assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
            assert_eq!(head[0] & 0x80, 0x80, "messages come whole");
            let length = match head[1] {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut payload).await?;
            self.bytes.extend_from_slice(&head);
            self.bytes.extend_from_slice(&payload);
            match head[0] & 0x0f {
                1 | 2 => return Ok(Came::Message(payload)),
                8 => return Ok(Came::Close(payload.get(..2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]])))),
                9 => {
                    let mut pong = vec![0x8a, 0x80 | head[1], 0, 0, 0, 0];
                    pong.extend_from_slice(&payload);
                    self.stream.write_all(&pong).await?;
                }
                _ => {}
            }
        }
    }
}

/// A HELLO as media servers send it.
pub fn hello(jwt: &str, server: &str) -> String {
    format!(r#"{{"type":"hello","enrollment_jwt":"{jwt}","server_id":"{server}"}}"#)
}

/// A relay frame.
pub fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = id.to_be_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
