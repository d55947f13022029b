//! Whether an answer may go on from another one, and whether the other one is its exact continuation.
//!
//! Decisions over heads alone. A transfer that is resumed wrongly is a damaged file that nobody notices, so everything
//! that is not certain is a no.
//= trust s.10

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// What an answer's head has promised its viewer: these bytes of that representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Promise {
    etag: HeaderValue,
    /// The values of the fields that say what the bytes mean, in their order.
    meaning: [Vec<HeaderValue>; 2],
    span: Span,
}

/// Bytes of a representation: `first` to `last`, both included, of `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
    total: u64,
}

/// How a second answer differs from what the first one promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Differs {
    /// 200: the representation has changed, or the origin knows no ranges.
    #[error("the answer is no single part of the representation")]
    Status,
    #[error("the entity tag is another")]
    Etag,
    #[error("the type or the encoding is another")]
    Meaning,
    #[error("the part is another than was asked for")]
    Span,
    #[error("the body's length is not the part's")]
    Length,
}

/// Fields that say how to understand the bytes.
const MEANING: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];

/// Fields of a request that the question for the rest replaces: what they asked has been answered.
const ANSWERED: [HeaderName; 6] = [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

impl Promise {
    /// What this answer promises, where it could go on from another one. `length` is its body's, if it has one.
    pub(super) fn of(method: &Method, status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Option<Self> {
        if *method != Method::GET {
            return None;
        }
        let length = length.filter(|length| *length > 0)?;
        let span = match status {
            StatusCode::OK => Span { first: 0, last: length - 1, total: length },
            StatusCode::PARTIAL_CONTENT => Span::of(headers)?,
            _ => return None,
        };
        let etag = strong_etag(headers)?;
        let meaning = meaning(headers);
        let multipart = meaning[0].iter().any(|value| starts_with(value.as_bytes(), b"multipart/"));
        if span.length() != length || multipart || refuses_ranges(headers) {
            return None;
        }
        Some(Self { etag: etag.clone(), meaning, span })
    }

    /// How many bytes were promised.
    pub(super) fn length(&self) -> u64 {
        self.span.length()
    }

    /// Where in the representation the rest begins, when so many bytes have been delivered.
    pub(super) fn offset(&self, delivered: u64) -> u64 {
        self.span.first.saturating_add(delivered)
    }

    /// Turns the fields of the first request into those of the question for the rest (RFC 9110 s.13.1.5, s.14.2).
    pub(super) fn ask(&self, headers: &mut HeaderMap, delivered: u64) {
        for name in ANSWERED {
            headers.remove(name);
        }
        let range = format!("bytes={}-{}", self.offset(delivered), self.span.last);
        headers.insert(RANGE, HeaderValue::try_from(range).expect("digits are a field's value"));
        headers.insert(IF_RANGE, self.etag.clone());
    }

    /// Whether an answer to `ask` is what is missing, from the exact byte to the exact end.
    pub(super) fn is_continued_by(
        &self,
        delivered: u64,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
    ) -> Result<(), Differs> {
        if status != StatusCode::PARTIAL_CONTENT {
            return Err(Differs::Status);
        }
        if strong_etag(headers) != Some(&self.etag) {
            return Err(Differs::Etag);
        }
        if meaning(headers) != self.meaning {
            return Err(Differs::Meaning);
        }
        let rest = Span { first: self.offset(delivered), ..self.span };
        if Span::of(headers) != Some(rest) {
            return Err(Differs::Span);
        }
        if length != Some(rest.length()) {
            return Err(Differs::Length);
        }
        Ok(())
    }
}

impl Span {
    /// The span of a 206 with one part and a known total: `bytes 0-9/10`.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = one(headers, &CONTENT_RANGE)?.to_str().ok()?;
        let (unit, range) = text.split_once(' ')?;
        let (range, total) = range.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let span = Self { first: number(first)?, last: number(last)?, total: number(total)? };
        (unit.eq_ignore_ascii_case("bytes") && span.first <= span.last && span.last < span.total).then_some(span)
    }

    fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

/// Digits alone: no sign, no space.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The field's value, if it has exactly one.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The entity tag, if it stands for identical bytes (RFC 9110 s.8.8.3).
fn strong_etag(headers: &HeaderMap) -> Option<&HeaderValue> {
    let etag = one(headers, &ETAG)?;
    let opaque = etag.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)).then_some(etag)
}

fn meaning(headers: &HeaderMap) -> [Vec<HeaderValue>; 2] {
    MEANING.map(|name| headers.get_all(name).iter().cloned().collect())
}

fn refuses_ranges(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_RANGES).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"none"))
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    const TAG: (&str, &str) = ("etag", "\"v1\"");
    const TYPE: (&str, &str) = ("content-type", "video/mp4");

    fn of(status: u16, fields: &[(&str, &str)], length: Option<u64>) -> Option<Promise> {
        Promise::of(&Method::GET, StatusCode::from_u16(status).unwrap(), &map(fields), length)
    }

    #[test]
    fn a_whole_answer_or_one_part_of_it_may_be_resumed() {
        let whole = of(200, &[TAG, TYPE], Some(1000)).unwrap();
        assert_eq!(whole.span, Span { first: 0, last: 999, total: 1000 });
        let part = of(206, &[TAG, TYPE, ("content-range", "bytes 100-199/1000")], Some(100)).unwrap();
        assert_eq!((part.offset(40), part.length()), (140, 100));
        assert!(of(206, &[TAG, ("content-range", "Bytes 0-0/1")], Some(1)).is_some());
        assert!(of(200, &[("etag", "\"\""), ("accept-ranges", "bytes")], Some(1)).is_some());
    }

    #[test]
    fn what_is_not_certain_is_not_resumed() {
        let range = |text: &'static str| ("content-range", text);
        type Case<'a> = (&'a str, u16, &'a [(&'a str, &'a str)], Option<u64>);
        let no: &[Case<'_>] = &[
            ("no tag", 200, &[TYPE], Some(1000)),
            ("a weak tag", 200, &[("etag", "W/\"v1\"")], Some(1000)),
            ("two tags", 200, &[TAG, ("etag", "\"v2\"")], Some(1000)),
            ("no quotes", 200, &[("etag", "v1")], Some(1000)),
            ("half a quote", 200, &[("etag", "\"")], Some(1000)),
            ("a quote inside", 200, &[("etag", "\"a\"b\"")], Some(1000)),
            ("a space inside", 200, &[("etag", "\"a b\"")], Some(1000)),
            ("no length", 200, &[TAG], None),
            ("nothing to come", 200, &[TAG], Some(0)),
            ("no ranges there", 200, &[TAG, ("accept-ranges", "none")], Some(1000)),
            ("another status", 203, &[TAG], Some(1000)),
            ("an error", 404, &[TAG], Some(1000)),
            ("many parts", 206, &[TAG, ("content-type", "Multipart/byteranges; boundary=x")], Some(1000)),
            (
                "many parts and a range",
                206,
                &[TAG, ("content-type", "multipart/byteranges"), range("bytes 0-9/10")],
                Some(10),
            ),
            ("many parts as a whole", 200, &[TAG, ("content-type", "multipart/mixed")], Some(1000)),
            ("no range", 206, &[TAG], Some(1000)),
            ("two ranges", 206, &[TAG, range("bytes 0-9/10"), range("bytes 0-9/10")], Some(10)),
            ("an unknown total", 206, &[TAG, range("bytes 0-9/*")], Some(10)),
            ("an unsatisfied range", 206, &[TAG, range("bytes */10")], Some(10)),
            ("another unit", 206, &[TAG, range("items 0-9/10")], Some(10)),
            ("backwards", 206, &[TAG, range("bytes 9-0/10")], Some(10)),
            ("beyond the end", 206, &[TAG, range("bytes 0-10/10")], Some(11)),
            ("a sign", 206, &[TAG, range("bytes +0-9/10")], Some(10)),
            ("a space", 206, &[TAG, range("bytes  0-9/10")], Some(10)),
            ("no number", 206, &[TAG, range("bytes -9/10")], Some(10)),
            ("too large a number", 206, &[TAG, range("bytes 0-9/99999999999999999999")], Some(10)),
            ("a body of another length", 206, &[TAG, range("bytes 0-9/10")], Some(9)),
        ];
        for (what, status, fields, length) in no {
            assert_eq!(of(*status, fields, *length), None, "{what}");
        }
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(Promise::of(&method, StatusCode::OK, &map(&[TAG]), Some(1000)), None, "{method}");
        }
    }

    #[test]
    fn the_rest_is_asked_for_from_the_next_byte_to_the_same_end() {
        let part = of(206, &[TAG, ("content-range", "bytes 100-199/1000")], Some(100)).unwrap();
        let mut headers = map(&[
            ("range", "bytes=100-199"),
            ("if-range", "\"v1\""),
            ("if-match", "\"v1\""),
            ("if-none-match", "\"v0\""),
            ("if-modified-since", "Tue, 24 Nov 2026 00:00:00 GMT"),
            ("if-unmodified-since", "Tue, 24 Nov 2026 00:00:00 GMT"),
            ("accept-encoding", "gzip"),
            ("cookie", "sid=1"),
        ]);
        part.ask(&mut headers, 40);
        let asked =
            [("range", "bytes=140-199"), ("if-range", "\"v1\""), ("accept-encoding", "gzip"), ("cookie", "sid=1")];
        assert_eq!(headers, map(&asked));

        let mut headers = HeaderMap::new();
        of(200, &[TAG], Some(1000)).unwrap().ask(&mut headers, 0);
        assert_eq!(headers, map(&[("range", "bytes=0-999"), ("if-range", "\"v1\"")]));
    }

    #[test]
    fn only_the_exact_rest_continues_an_answer() {
        let first = of(200, &[TAG, TYPE, ("content-encoding", "gzip")], Some(1000)).unwrap();
        let judge = |status: u16, fields: &[(&str, &str)], length: Option<u64>| {
            first.is_continued_by(400, StatusCode::from_u16(status).unwrap(), &map(fields), length)
        };
        let good = [TAG, TYPE, ("content-encoding", "gzip"), ("content-range", "bytes 400-999/1000")];
        assert_eq!(judge(206, &good, Some(600)), Ok(()));
        let but = |index: usize, field: (&'static str, &'static str)| {
            let mut fields = good;
            fields[index] = field;
            judge(206, &fields, Some(600))
        };
        for status in [200, 203, 304, 404, 412, 416, 503] {
            assert_eq!(judge(status, &good, Some(600)), Err(Differs::Status), "{status}");
        }
        for etag in ["\"v2\"", "W/\"v1\"", "\"v1 \"", "v1"] {
            assert_eq!(but(0, ("etag", etag)), Err(Differs::Etag), "{etag}");
        }
        assert_eq!(judge(206, &good[1..], Some(600)), Err(Differs::Etag));
        for (index, field) in
            [(1, ("content-type", "video/webm")), (1, ("x", "y")), (2, ("content-encoding", "br")), (2, ("x", "y"))]
        {
            assert_eq!(but(index, field), Err(Differs::Meaning), "{field:?}");
        }
        let twice = [&good[..], &[("content-encoding", "gzip")]].concat();
        assert_eq!(judge(206, &twice, Some(600)), Err(Differs::Meaning));
        for range in [
            "bytes 399-999/1000",
            "bytes 401-999/1000",
            "bytes 400-998/1000",
            "bytes 400-1000/1001",
            "bytes 400-999/1001",
            "bytes 400-999/*",
            "bytes 0-599/1000",
        ] {
            assert_eq!(but(3, ("content-range", range)), Err(Differs::Span), "{range}");
        }
        let parts = [TAG, ("content-type", "multipart/byteranges; boundary=x"), ("content-encoding", "gzip")];
        assert_eq!(judge(206, &parts, Some(600)), Err(Differs::Meaning));
        for length in [None, Some(599), Some(601), Some(1000)] {
            assert_eq!(judge(206, &good, length), Err(Differs::Length), "{length:?}");
        }
    }
}
