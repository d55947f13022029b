//! An answer's head, from a server that may say anything.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{MAX_FIELDS, is_name, is_value};

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// 200 to 599.
    pub status: u16,
    /// Names and values that HTTP can have; each name once.
    pub headers: Vec<(String, String)>,
    /// What the header of this name promises.
    pub content_length: Option<u64>,
    /// What the server knows of the body's length.
    pub body_length: Option<u64>,
    /// Fields that were left out: not HTTP's, not text, or said again later.
    pub skipped: usize,
}

/// Why an answer's head is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("head is not JSON of the known form, or has more than 256 header fields")]
    Malformed,
    #[error("status is not 200 to 599")]
    Status,
    #[error("content length is no number, or there are two")]
    Length,
}

impl ResponseHead {
    /// Reads the JSON of a HEAD chunk.
    pub fn parse(json: &[u8]) -> Result<Self, HeadError> {
        #[derive(Deserialize)]
        struct Head {
            status: u64,
            #[serde(default)]
            headers: Fields,
            #[serde(default, rename = "bodyLength")]
            body_length: Option<u64>,
        }
        // serde would take a list for the fields in their order.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(HeadError::Malformed);
        }
        let Head { status, headers: Fields { fields, skipped }, body_length } =
            serde_json::from_slice(json).map_err(|_| HeadError::Malformed)?;
        let status =
            u16::try_from(status).ok().filter(|status| (200..600).contains(status)).ok_or(HeadError::Status)?;
        let content_length = match fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            // No sign, no list: who reads it otherwise than we do could be told another body.
            Some((_, text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(text.parse().map_err(|_| HeadError::Length)?)
            }
            Some(_) => return Err(HeadError::Length),
            None => None,
        };
        let mut head = Self { status, headers: Vec::with_capacity(fields.len()), content_length, body_length, skipped };
        for (name, value) in fields {
            let value = value.trim_matches([' ', '\t']);
            if !is_name(&name) || !is_value(value) {
                head.skipped += 1;
                continue;
            }
            match head.headers.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(&name)) {
                Some((_, before)) => {
                    if name.eq_ignore_ascii_case("content-length") && before != value {
                        return Err(HeadError::Length);
                    }
                    value.clone_into(before);
                    head.skipped += 1;
                }
                None => head.headers.push((name, value.to_owned())),
            }
        }
        Ok(head)
    }
}

/// A map of header fields. PHP writes an empty one as a list, too.
#[derive(Debug, Default)]
struct Fields {
    fields: Vec<(String, String)>,
    skipped: usize,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of at most 256 header fields, or an empty list")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut all = Fields::default();
                while let Some((name, Text(value))) = map.next_entry::<String, Text>()? {
                    if all.fields.len() + all.skipped == MAX_FIELDS {
                        return Err(serde::de::Error::invalid_length(MAX_FIELDS + 1, &self));
                    }
                    match value {
                        Some(value) => all.fields.push((name, value)),
                        None => all.skipped += 1,
                    }
                }
                Ok(all)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Fields, A::Error> {
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Fields::default()),
                    Some(_) => Err(serde::de::Error::invalid_length(1, &self)),
                }
            }
        }
        deserializer.deserialize_any(Map)
    }
}

/// A header's value: text, or a number as PHP writes one that nobody made text of. `None` for all else.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Some(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text(Some(text)))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
                Ok(Text(Some(number.to_string())))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
                Ok(Text(Some(number.to_string())))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Text(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ResponseHead, HeadError> {
        ResponseHead::parse(json.as_bytes())
    }

    fn fields(json: &str) -> (Vec<(String, String)>, usize) {
        let head = parse(&format!("{{\"status\":200,\"headers\":{json}}}")).expect("a head");
        (head.headers, head.skipped)
    }

    #[test]
    fn no_headers_is_an_empty_map_an_empty_list_or_nothing() {
        for json in ["{\"status\":200,\"headers\":{}}", "{\"status\":200,\"headers\":[]}", "{\"status\":200}"] {
            let head = parse(json).expect("a head");
            assert_eq!((head.headers.len(), head.content_length, head.body_length), (0, None, None));
        }
        assert_eq!(parse("{\"status\":200,\"headers\":[\"a\"]}"), Err(HeadError::Malformed));
    }

    #[test]
    fn a_status_that_ends_no_exchange_is_refused() {
        for status in ["0", "99", "100", "101", "199", "600", "1000", "65736", "18446744073709551615"] {
            assert_eq!(parse(&format!("{{\"status\":{status}}}")), Err(HeadError::Status), "{status}");
        }
        for status in ["-1", "\"200\"", "null", "2e2x", "99999999999999999999"] {
            assert_eq!(parse(&format!("{{\"status\":{status}}}")), Err(HeadError::Malformed), "{status}");
        }
        assert!([200, 206, 304, 416, 599].iter().all(|status| parse(&format!("{{\"status\":{status}}}")).is_ok()));
    }

    #[test]
    fn fields_that_http_cannot_have_are_skipped() {
        let (headers, skipped) = fields(
            r#"{"A":"x\r\nSet-Cookie: evil=1","B\r\nC":"x","a b":"x","n:m":"x","":"x","N":"\u0000","D":"\u007f",
            "ok":" spaced\t","L":["x"],"M":{"a":[{}]},"Z":null,"T":true,"F":1.5,"I":7,"J":-1,"Ä":"x","utf":"ü"}"#,
        );
        let named: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(named, [("ok", "spaced"), ("I", "7"), ("J", "-1"), ("utf", "ü")]);
        assert_eq!(skipped, 13);
    }

    #[test]
    fn of_a_field_that_comes_twice_the_last_counts() {
        let (headers, skipped) = fields(r#"{"Set-Cookie":"a=1","X":"y","set-cookie":"b=2"}"#);
        assert_eq!(headers[0], ("Set-Cookie".into(), "b=2".into()));
        assert_eq!((headers.len(), skipped), (2, 1));
    }

    #[test]
    fn a_content_length_is_one_number() {
        let length =
            |json: &str| parse(&format!("{{\"status\":200,\"headers\":{json}}}")).map(|head| head.content_length);
        assert_eq!(length(r#"{"content-length":"1024"}"#), Ok(Some(1024)));
        assert_eq!(length(r#"{"Content-Length":1024}"#), Ok(Some(1024)));
        assert_eq!(length(r#"{"Content-Length":"5","content-length":"5"}"#), Ok(Some(5)));
        for wrong in ["\"\"", "\"-1\"", "\"+1\"", "\"1, 1\"", "\" 1\"", "\"0x1\"", "\"18446744073709551616\"", "-1"] {
            assert_eq!(length(&format!("{{\"Content-Length\":{wrong}}}")), Err(HeadError::Length), "{wrong}");
        }
        assert_eq!(length(r#"{"Content-Length":"5","content-length":"6"}"#), Err(HeadError::Length));
    }

    #[test]
    fn a_head_has_at_most_256_fields_and_a_bounded_depth() {
        let many = |count| (0..count).map(|at| format!("\"h{at}\":\"v\"")).collect::<Vec<_>>().join(",");
        assert_eq!(fields(&format!("{{{}}}", many(256))).0.len(), 256);
        assert_eq!(parse(&format!("{{\"status\":200,\"headers\":{{{}}}}}", many(257))), Err(HeadError::Malformed));
        let nulls = vec!["\"h\":null"; 10_000].join(",");
        assert_eq!(parse(&format!("{{\"status\":200,\"headers\":{{{nulls}}}}}")), Err(HeadError::Malformed));
        for bomb in ["[", "{\"a\":"] {
            let json = format!("{{\"status\":200,\"x\":{}", bomb.repeat(10_000));
            assert_eq!(parse(&json), Err(HeadError::Malformed));
            let json = format!("{{\"status\":200,\"headers\":{{\"x\":{}", bomb.repeat(10_000));
            assert_eq!(parse(&json), Err(HeadError::Malformed));
        }
        assert_eq!(parse("{\"status\":200}{}"), Err(HeadError::Malformed));
        assert_eq!(parse("[200]"), Err(HeadError::Malformed));
    }
}
