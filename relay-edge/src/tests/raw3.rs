//! A viewer over HTTP/3 that says whatever bytes a test gives it.

use super::viewer;
use super::world::World;

/// One connection.
pub(super) struct Raw3 {
    pub(super) connection: quinn::Connection,
    pub(super) control: quinn::SendStream,
}

/// One request's stream.
pub(super) struct Stream3 {
    pub(super) send: quinn::SendStream,
    pub(super) recv: quinn::RecvStream,
    /// Of a DATA frame, not heard yet.
    left: usize,
}

/// A length or a code as QUIC writes it, below 2^14.
pub(super) fn number(number: usize) -> Vec<u8> {
    match number {
        0..64 => vec![u8::try_from(number).unwrap()],
        _ => (u16::try_from(number).unwrap() | 1 << 14).to_be_bytes().to_vec(),
    }
}

/// A frame.
pub(super) fn frame(kind: usize, payload: &[u8]) -> Vec<u8> {
    [number(kind), number(payload.len()), payload.to_vec()].concat()
}

fn prefixed(first: u8, bits: u32, length: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if length < most {
        return vec![first | u8::try_from(length).unwrap()];
    }
    let mut out = vec![first | u8::try_from(most).unwrap()];
    let mut rest = length - most;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
    out
}

/// A field section of literals.
pub(super) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![0, 0];
    for (name, value) in fields {
        out.extend(prefixed(0x20, 3, name.len()));
        out.extend(name.as_bytes());
        out.extend(prefixed(0, 7, value.len()));
        out.extend(value.as_bytes());
    }
    out
}

impl Raw3 {
    pub(super) async fn open(world: &World, host: &str) -> Self {
        let connection = viewer::quic(world.at.tls, &world.trust, host).await;
        let mut control = connection.open_uni().await.unwrap();
        // A control stream with settings that say nothing.
        control.write_all(&[0x00, 0x04, 0x00]).await.unwrap();
        Self { connection, control }
    }

    /// A stream that begins with these bytes and is not ended.
    pub(super) async fn begin(&self, bytes: &[u8]) -> Stream3 {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        // The edge may be through with it before it has all of them.
        let _ = send.write_all(bytes).await;
        Stream3 { send, recv, left: 0 }
    }

    /// A request with these fields, whose stream is not ended.
    pub(super) async fn ask(&self, fields: &[(&str, &str)]) -> Stream3 {
        self.begin(&frame(0x01, &section(fields))).await
    }

    /// With which code the edge closed the connection.
    pub(super) async fn closed(&self) -> u64 {
        match self.connection.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("{other}"),
        }
    }
}

impl Drop for Raw3 {
    fn drop(&mut self) {
        self.connection.close(0x100_u32.into(), b"");
    }
}

impl Stream3 {
    async fn byte(&mut self) -> Result<Option<u8>, u64> {
        let mut byte = [0];
        match self.recv.read(&mut byte).await {
            Ok(Some(_)) => Ok(Some(byte[0])),
            Ok(None) => Ok(None),
            Err(quinn::ReadError::Reset(code)) => Err(code.into_inner()),
            Err(_) => Err(0),
        }
    }

    async fn number(&mut self) -> Result<Option<usize>, u64> {
        let Some(first) = self.byte().await? else { return Ok(None) };
        let mut value = usize::from(first & 0x3f);
        for _ in 1..(1 << (first >> 6)) {
            value = value << 8 | usize::from(self.byte().await?.unwrap());
        }
        Ok(Some(value))
    }

    /// The answer's status, or the code of the reset that came instead.
    pub(super) async fn status(&mut self) -> Result<u16, u64> {
        let kind = self.number().await?.expect("an answer");
        assert_eq!(kind, 1, "HEADERS");
        let mut section = vec![0; self.number().await?.unwrap()];
        self.recv.read_exact(&mut section).await.unwrap();
        // Lines of the static table, or a literal under the name `:status`, in Huffman's code or not.
        Ok(match &section[2..] {
            [0xd9, ..] => 200,
            [0xdb, ..] => 404,
            [0xdc, ..] => 503,
            [0xff, 0x00, ..] => 100,
            [0xff, 0x04, ..] => 400,
            [0xff, 0x05, ..] => 403,
            [0xff, 0x06, ..] => 421,
            [0xff, 0x08, ..] => 500,
            [0x5f, 0x09, 0x03, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
            [0x5f, 0x09, 0x82, 0x6c, 0x01, ..] => 501,
            [0x5f, 0x09, 0x82, 0x6c, 0x02, ..] => 502,
            [0x5f, 0x09, 0x83, 0x68, 0x01, ..] => 401,
            [0x5f, 0x09, 0x82, 0x68, 0x01, ..] => 401,
            [0x5f, 0x09, 0x83, 0x69, 0x90, ..] => 431,
            other => panic!("a status that the test does not know: {other:x?}"),
        })
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(10_000) {
            self.send.write_all(&frame(0x00, chunk)).await.unwrap();
        }
    }

    pub(super) fn finish(&mut self) {
        self.send.finish().unwrap();
    }

    /// So many bytes of the body, or fewer at its end; the code of a reset.
    pub(super) async fn hear(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut heard = Vec::new();
        while heard.len() < length {
            if self.left == 0 {
                let reset = |code| format!("reset {code:#x}");
                match self.number().await.map_err(reset)? {
                    None => break,
                    Some(0) => self.left = self.number().await.map_err(reset)?.unwrap(),
                    Some(kind) => panic!("a frame of kind {kind}"),
                }
                continue;
            }
            let mut bytes = vec![0; self.left.min(length - heard.len())];
            match self.recv.read(&mut bytes).await {
                Ok(Some(read)) => {
                    heard.extend_from_slice(&bytes[..read]);
                    self.left -= read;
                }
                Ok(None) => panic!("ended within a frame"),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(heard)
    }
}
