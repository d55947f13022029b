//! Where one HTTP/1.1 request ends and the next begins, followed on the way to hyper (T9).
//!
//! hyper reads some requests that could be read in two ways, and drops what it didn't choose before anybody can see it.
//! Here they are told from the others: a head that contradicts itself, and a line that ends in anything but CRLF, never
//! reach hyper whole. Instead it gets a byte that no head may have, and answers 400 and closes by itself. A body whose
//! chunks are not exactly RFC 9112's breaks off the same way.
//!
//! Sans-IO; bodies are skipped, heads are kept until they are whole and judged once.

use http::header::UPGRADE;
use http::{Method, Request};

/// What hyper is given in the place of what it must not see: no head and no trailer has a NUL.
const NUL: &[u8] = b"\0\r\n\r\n";

/// The same inside of a chunk extension, where hyper minds nothing else.
const NEWLINE: &[u8] = b"\n";

/// What a head's buffer keeps between two heads.
const KEPT: usize = 4096;

/// A contradiction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// How many of the bytes are good.
    pub(super) good: usize,
    /// What comes in the place of the rest.
    pub(super) instead: &'static [u8],
    pub(super) why: &'static str,
}

/// One connection's requests.
#[derive(Debug)]
pub(super) struct Heads {
    state: State,
    /// The head as far as it came, less empty lines before it.
    head: Vec<u8>,
    /// Where its last line begins.
    line: usize,
    /// Bytes of this head, empty lines included, as hyper counts them.
    seen: usize,
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    Chunks(Chunk),
    /// Nothing more is judged: the stream has another protocol or ends with this request.
    Opaque,
    /// Longer than hyper takes: it says so itself.
    TooLong,
    Refused,
}

/// RFC 9112 s.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        digits: u8,
        size: u64,
    },
    /// Space, after which only an extension may come.
    Space(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer {
        empty: bool,
    },
    TrailerLf {
        empty: bool,
    },
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    Opaque,
}

impl Heads {
    /// With the length of head that hyper takes.
    pub(super) fn new(limit: usize) -> Self {
        Self { state: State::Head, head: Vec::new(), line: 0, seen: 0, limit }
    }

    /// Follows bytes that came.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let refused = |good: usize, instead, why| Refused { good: at + good, instead, why };
            match self.state {
                State::Head => match self.scan_head(rest) {
                    Ok(used) => at += used,
                    Err((good, why)) => {
                        self.state = State::Refused;
                        self.head = Vec::new();
                        return Err(refused(good, NUL, why));
                    }
                },
                State::Body(left) => {
                    let used = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - used as u64;
                    self.state = if left == 0 { State::Head } else { State::Body(left) };
                    at += used;
                }
                State::Chunks(chunk) => {
                    let (used, next) = match chunk {
                        Chunk::Data(left) => {
                            let used = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                            let left = left - used as u64;
                            (used, Ok(Some(if left == 0 { Chunk::DataCr } else { Chunk::Data(left) })))
                        }
                        _ => (1, chunk.step(rest[0])),
                    };
                    match next {
                        Ok(next) => self.state = next.map_or(State::Head, State::Chunks),
                        Err(why) => {
                            self.state = State::Refused;
                            let instead = if matches!(chunk, Chunk::Extension(_)) { NEWLINE } else { NUL };
                            return Err(refused(0, instead, why));
                        }
                    }
                    at += used;
                }
                State::Opaque | State::TooLong => return Ok(()),
                State::Refused => return Err(refused(0, &[], "nothing follows what was refused")),
            }
        }
        Ok(())
    }

    /// The bytes of a head; how many belonged to it.
    fn scan_head(&mut self, bytes: &[u8]) -> Result<usize, (usize, &'static str)> {
        for (at, &byte) in bytes.iter().enumerate() {
            let after_cr = self.head.last() == Some(&b'\r');
            match byte {
                b'\n' if !after_cr => return Err((at, "a line ends without CR")),
                0 => return Err((at, "NUL")),
                b'\n' => {}
                _ if after_cr => return Err((at, "CR inside of a line")),
                _ => {}
            }
            self.seen += 1;
            if self.seen > self.limit {
                self.state = State::TooLong;
                self.head = Vec::new();
                return Ok(bytes.len());
            }
            self.head.push(byte);
            if byte != b'\n' {
                continue;
            }
            if self.head == b"\r\n" {
                // RFC 9112 s.2.2: an empty line before a request is none of it.
                self.head.clear();
                continue;
            }
            let empty = self.head.len() - self.line == 2;
            self.line = self.head.len();
            if empty {
                let framing = judge(&self.head).map_err(|why| (at, why))?;
                self.head.clear();
                self.head.shrink_to(KEPT);
                (self.line, self.seen) = (0, 0);
                self.state = match framing {
                    Framing::Length(0) => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::Chunks(Chunk::START),
                    Framing::Opaque => State::Opaque,
                };
                return Ok(at + 1);
            }
        }
        Ok(bytes.len())
    }
}

impl Chunk {
    const START: Self = Self::Size { digits: 0, size: 0 };

    /// One byte, other than of data; `None` at the body's end.
    fn step(self, byte: u8) -> Result<Option<Self>, &'static str> {
        let next = match (self, byte) {
            (Self::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                // 64 bits.
                if digits == 16 {
                    return Err("a chunk's size has too many digits");
                }
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ => (byte | 0x20) - b'a' + 10,
                };
                Self::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeLf(size),
            (Self::Size { digits: 1.., size } | Self::Space(size), b';') => Self::Extension(size),
            (Self::Size { digits: 1.., size } | Self::Space(size), b' ' | b'\t') => Self::Space(size),
            (Self::Size { .. } | Self::Space(_), _) => return Err("a chunk's size is none"),
            (Self::Extension(size), b'\r') => Self::SizeLf(size),
            (Self::Extension(size), _) if is_text(byte) => Self::Extension(size),
            (Self::Extension(_), _) => return Err("a chunk's extension is no text"),
            (Self::SizeLf(0), b'\n') => Self::Trailer { empty: true },
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::Data(_) | Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::Data(_) | Self::DataCr | Self::DataLf, _) => return Err("a chunk is longer than its size"),
            (Self::Trailer { empty }, b'\r') => Self::TrailerLf { empty },
            (Self::Trailer { empty: true }, b' ' | b'\t') => return Err("a folded line"),
            (Self::Trailer { .. }, _) if is_text(byte) => Self::Trailer { empty: false },
            (Self::TrailerLf { empty: true }, b'\n') => return Ok(None),
            (Self::TrailerLf { empty: false }, b'\n') => Self::Trailer { empty: true },
            (Self::Trailer { .. }, _) => return Err("a trailer is no text"),
            (Self::SizeLf(_) | Self::TrailerLf { .. }, _) => return Err("CR inside of a line"),
        };
        Ok(Some(next))
    }
}

/// VCHAR, obs-text, space and tab (RFC 9110 s.5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110 s.5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// What follows a whole head (RFC 9112 s.6.3); or why nothing can be believed to.
fn judge(head: &[u8]) -> Result<Framing, &'static str> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("the request line has not three words");
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(|byte| is_text(*byte) && *byte != b'\t') {
        return Err("the request line is none");
    }
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("no such version"),
    };
    let (mut length, mut chunked, mut opaque) = (None, false, method == b"CONNECT");
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a field has no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // Space before the colon, and folded lines, are in no token.
        if !is_token(name) {
            return Err("a field's name is none");
        }
        if !value.iter().all(|byte| is_text(*byte)) {
            return Err("a field's value is no text");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err("there is more than one Content-Length");
            }
            length = Some(parse_length(value).ok_or("Content-Length is no length")?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || old || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("Transfer-Encoding is not chunked");
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"content_length") || name.eq_ignore_ascii_case(b"transfer_encoding") {
            // Some origins fold `_` and `-` into one.
            return Err("a field looks like the body's length");
        } else if name.eq_ignore_ascii_case(UPGRADE.as_str().as_bytes()) {
            opaque |= is_other_protocol(value);
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err("the body has two lengths"),
        _ if opaque => Ok(Framing::Opaque),
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or_default())),
    }
}

fn parse_length(value: &[u8]) -> Option<u64> {
    // No sign, no list, no space.
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// An upgrade that the sender may count on. h2c is an offer that may be passed over (RFC 9110 s.7.8).
fn is_other_protocol(value: &[u8]) -> bool {
    !value.eq_ignore_ascii_case(b"h2c")
}

/// Whether what follows this request on its connection is not followed here any more: then only another protocol may come,
/// or nothing.
pub(super) fn ends_http<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
        || request.headers().get_all(UPGRADE).iter().any(|value| is_other_protocol(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64 * 1024;

    /// In one piece, and byte by byte; both must say the same.
    fn scan(bytes: &[u8]) -> Result<State, (usize, &'static str)> {
        let mut whole = Heads::new(LIMIT);
        let one = whole.scan(bytes).map(|()| whole.state).map_err(|refused| (refused.good, refused.why));
        let mut pieces = Heads::new(LIMIT);
        let many = bytes
            .iter()
            .enumerate()
            .try_for_each(|(at, byte)| {
                pieces.scan(std::slice::from_ref(byte)).map_err(|refused| (at + refused.good, refused.why))
            })
            .map(|()| pieces.state);
        assert_eq!(one, many);
        one
    }

    #[test]
    fn requests_are_followed_to_their_ends() {
        for (bytes, state) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", State::Head),
            ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", State::Head),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\0\n\r\nx", State::Head),
            ("POST / HTTP/1.1\r\ncontent-length:\t 5 \r\n\r\n12345GET / HTTP/1.1\r\n\r\n", State::Head),
            ("POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n12345", State::Body(1)),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\n\0\n\r\nx\r\n0\r\n\r\n", State::Head),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1 ;a=\"b\"\r\nx\r\n00;c\r\nDigest: y\r\nB: z\r\n\r\n",
                State::Head,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r",
                State::Chunks(Chunk::TrailerLf { empty: true }),
            ),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\0\n", State::Opaque),
            ("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", State::Head),
            ("CONNECT a:1 HTTP/1.1\r\n\r\n\0", State::Opaque),
        ] {
            assert_eq!(scan(bytes.as_bytes()), Ok(state), "{bytes:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_where_it_shows() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Content_Length: 5",
            "Transfer_Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: identity",
            "Transfer-Encoding:",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            "Transfer-Encoding:\x0bchunked",
            " Transfer-Encoding: chunked",
            "X: a\r\n folded",
            "X: a\r\n\tTransfer-Encoding: chunked",
            "X",
            ": x",
            "X: a\x7f",
            "X\u{e9}: a",
        ] {
            let bytes = head(fields);
            let (good, why) = scan(bytes.as_bytes()).expect_err(fields);
            assert_eq!(good, bytes.len() - 1, "{fields:?}: judged with its last byte ({why})");
        }
        for (bytes, good) in [
            ("GET / HTTP/1.1\nHost: a\n\n", 14),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 23),
            ("\nGET / HTTP/1.1\r\n\r\n", 0),
            ("GET / HTTP/1.1\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", 21),
            ("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", 20),
            ("GET / HTTP/1.1\r\r\n\r\n", 15),
            ("GET / HTTP/1.1 \r\n\r\n", 18),
            ("GET  / HTTP/1.1\r\n\r\n", 18),
            ("GET /\tx HTTP/1.1\r\n\r\n", 19),
            ("GET / HTTP/1.2\r\n\r\n", 17),
            ("GET / http/1.1\r\n\r\n", 17),
            ("GET /\r\n\r\n", 8),
            ("G(T / HTTP/1.1\r\n\r\n", 17),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 46),
        ] {
            assert_eq!(scan(bytes.as_bytes()).expect_err(bytes).0, good, "{bytes:?}");
        }
    }

    #[test]
    fn chunks_that_can_be_read_in_two_ways_are_refused() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (chunks, good) in [
            ("x\r\n", 0),
            ("\r\n", 0),
            ("-1\r\n", 0),
            ("0x5\r\n", 1),
            ("5\nhello", 1),
            ("5 \r\n", 2),
            ("5\r\r\n", 2),
            ("5;a\nhello\r\n", 3),
            ("5;a\0\r\n", 3),
            ("5;a\rb\r\n", 4),
            ("1\r\nxy\r\n", 4),
            ("1\r\nx\n0\r\n\r\n", 4),
            ("1\r\nx\rGET", 5),
            ("00000000000000001\r\n", 16),
            ("0\r\nX: a\nY: b\r\n\r\n", 7),
            ("0\r\nX: a\0\r\n\r\n", 7),
            ("0\r\n X: a\r\n\r\n", 3),
            ("0\r\n\rX", 4),
        ] {
            let bytes = format!("{head}{chunks}");
            assert_eq!(scan(bytes.as_bytes()).expect_err(chunks).0 - head.len(), good, "{chunks:?}");
        }
    }

    #[test]
    fn nothing_follows_what_was_refused() {
        let mut heads = Heads::new(LIMIT);
        let refused = heads.scan(b"GET / HTTP/1.1\nHost: a\n\n").unwrap_err();
        assert_eq!((refused.good, refused.instead), (14, NUL));
        assert_eq!(heads.scan(b"GET / HTTP/1.1\r\n\r\n").unwrap_err().good, 0);
    }

    #[test]
    fn a_head_that_never_ends_is_not_kept() {
        let mut heads = Heads::new(LIMIT);
        heads.scan(b"GET / HTTP/1.1\r\n").unwrap();
        for _ in 0..1000 {
            heads.scan(&[b'a'; 1000]).unwrap();
        }
        assert_eq!(heads.state, State::TooLong);
        assert_eq!(heads.head.capacity(), 0);
    }

    proptest! {
        /// Whatever is taken for a whole head, hyper's parser takes for the same head.
        #[test]
        fn a_head_that_is_taken_ends_where_hyper_says(
            lines in proptest::collection::vec("[ -~\t]{0,20}|[A-Za-z-]{1,12}: ?[ -~]{0,12}|Content-Length: [0-9]{1,3}|\u{e9}: x", 0..6),
            ends in proptest::collection::vec(prop_oneof![9 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")], 8),
            target in "/[!-~]{0,9}|\\*|[ -~]{0,5}",
        ) {
            let mut bytes = format!("GET {target} HTTP/1.1{}", ends[0]);
            for (line, end) in lines.iter().zip(&ends[1..]) {
                bytes.push_str(line);
                bytes.push_str(end);
            }
            bytes.push_str(ends[7]);
            bytes.push_str("\r\n");
            let mut heads = Heads::new(LIMIT);
            for (at, byte) in bytes.as_bytes().iter().enumerate() {
                if heads.scan(std::slice::from_ref(byte)).is_err() {
                    return Ok(());
                }
                if heads.seen == 0 {
                    let mut fields = [httparse::EMPTY_HEADER; 16];
                    let mut request = httparse::Request::new(&mut fields);
                    // hyper may still refuse it; it may not see another end.
                    if let Ok(status) = request.parse(bytes.as_bytes()) {
                        prop_assert_eq!(status, httparse::Status::Complete(at + 1), "{:?}", bytes);
                    }
                    return Ok(());
                }
            }
        }
    }
}
