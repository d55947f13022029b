//! HTTP/2 by hand: header lists that no library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::hub::Hub;
use crate::viewer::tls;

/// What the edge did with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered 200.
    Served,
    /// Answered something else.
    Answered,
    /// The stream was reset or the connection ended.
    Refused,
}

/// Sends one request with exactly these header fields, without a body, and waits for what happens.
pub async fn request(hub: &Hub, host: &str, fields: &[(&[u8], &[u8])]) -> Outcome {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let mut stream = tls(hub, host, &[b"h2"]).await;
    let mut block = Vec::new();
    for (name, value) in fields {
        // RFC 7541 s.6.2.2: literal without indexing, new name, no Huffman.
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    // END_STREAM and END_HEADERS.
    bytes.extend(frame(HEADERS, 0x5, 1, &block));
    if stream.write_all(&bytes).await.is_err() {
        return Outcome::Refused;
    }
    let read = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Outcome::Refused;
            }
            let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; size];
            if stream.read_exact(&mut payload).await.is_err() {
                return Outcome::Refused;
            }
            match head[3] {
                // The static table's entry for `:status: 200`.
                HEADERS if payload.first() == Some(&0x88) => return Outcome::Served,
                HEADERS => return Outcome::Answered,
                RST_STREAM | GOAWAY => return Outcome::Refused,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("the edge neither answers nor refuses")
}

/// RFC 7541 s.5.1, a length with a prefix of 7 bits.
fn length(length: usize, block: &mut Vec<u8>) {
    if length < 127 {
        block.push(length as u8);
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
