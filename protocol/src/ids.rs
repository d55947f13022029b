//! Identifiers. Each kind has its own type, so that a server's id can't be passed where a user's is meant.
//!
//! All are UUIDs written as 36 lower-case characters (upstream-api s.0); any other spelling is refused, so that one
//! id has one text and can be compared, hashed and used as a key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The text is not 36 characters of lower-case hyphenated UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected a lower-case UUID such as 6f1d2c3a-0b4e-4c7d-9a8f-1e2d3c4b5a69")]
pub struct InvalidId;

fn parse(text: &str) -> Result<Uuid, InvalidId> {
    let uuid = Uuid::try_parse(text).map_err(|_| InvalidId)?;
    let mut canonical = Uuid::encode_buffer();
    if uuid.hyphenated().encode_lower(&mut canonical) == text { Ok(uuid) } else { Err(InvalidId) }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that the caller made (random, version 4).
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A claimed media server.
    ServerId;
    /// An account of this hub.
    UserId;
    /// A relay edge. Made by the edge together with its key.
    EdgeId;
    /// One tunnel of one server at one edge. Made by the edge at `welcome`.
    TunnelId;
    /// One sign-in of a user (a browser's session or a family of refresh tokens): the `sid` of tickets.
    SessionId;
    /// One library share.
    ShareId;
    /// One pending claim; a bearer secret of the server that made it.
    ClaimId;
    /// One installation of an agent: random, kept in its state folder.
    InstanceId;
    /// One issued token: its `jti`.
    TokenId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "6f1d2c3a-0b4e-4c7d-9a8f-1e2d3c4b5a69";
        let id: ServerId = text.parse().expect("canonical text");
        assert_eq!(id.to_string(), text);
        for other in [
            text.to_uppercase(),
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("urn:uuid:{text}"),
            format!(" {text}"),
            String::new(),
        ] {
            assert_eq!(other.parse::<ServerId>(), Err(InvalidId), "{other}");
        }
    }

    #[test]
    fn an_id_is_json_text() {
        let id: UserId = "6f1d2c3a-0b4e-4c7d-9a8f-1e2d3c4b5a69".parse().expect("canonical text");
        let json = serde_json::to_string(&id).expect("ids serialize");
        assert_eq!(json, "\"6f1d2c3a-0b4e-4c7d-9a8f-1e2d3c4b5a69\"");
        assert_eq!(serde_json::from_str::<UserId>(&json).expect("round trip"), id);
    }
}
