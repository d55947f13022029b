//! Users' access and refresh tokens: HS256 JWTs as upstream makes them (upstream-api s.2.1), with `sid` added, so that a token
//! ends with its session. Only the hub reads them.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use phlix_protocol::ids::{SessionId, UserId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::timestamp::Timestamp;

const ISSUER: &str = "phlix-hub";
const AUDIENCE: &str = "hub";
/// Ours have about 400 bytes.
const MAX: usize = 2048;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Opens the API.
    Access,
    /// Buys one new pair of tokens.
    Refresh,
}

/// What such a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct UserClaims {
    /// `phlix-hub`.
    pub(crate) iss: String,
    /// `hub`.
    pub(crate) aud: String,
    /// The user's id.
    #[schema(value_type = String)]
    pub(crate) sub: UserId,
    /// The session that it ends with.
    #[schema(value_type = String)]
    pub(crate) sid: SessionId,
    /// Unix seconds.
    pub(crate) iat: i64,
    /// Unix seconds.
    pub(crate) exp: i64,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<i64>,
    /// `access` or `refresh`.
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    /// Of refresh tokens: 32 hexadecimal characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jti: Option<String>,
}

impl UserClaims {
    /// The claims of a token for `user` within `session`.
    pub(crate) fn new(kind: Kind, user: UserId, session: SessionId, now: Timestamp, until: Timestamp) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            sid: session,
            iat: now.seconds(),
            exp: until.seconds(),
            nbf: None,
            kind,
            jti: None,
        }
    }
}

/// The token is not believed; why is nobody's business but a test's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum UserTokenError {
    #[error("token is malformed")]
    Malformed,
    #[error("token has the wrong algorithm or type of header")]
    WrongHeader,
    #[error("token has a bad signature")]
    BadSignature,
    #[error("token is not for this hub")]
    WrongParties,
    #[error("token is of the other kind")]
    WrongKind,
    #[error("token is not valid at this time")]
    WrongTime,
}

/// The header as upstream writes it; nothing else is looked at, above all no `jku`, `jwk` or `kid`.
#[derive(Deserialize)]
struct SeenHeader {
    alg: String,
    typ: String,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

/// Signs.
pub(crate) fn sign(claims: &UserClaims, secret: &[u8]) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret))
        .expect("claims are a plain struct and HMAC takes any key")
}

/// Believes a token of this kind, signed with this secret, valid at `now`; no leeway.
pub(crate) fn verify(token: &str, kind: Kind, secret: &[u8], now: Timestamp) -> Result<UserClaims, UserTokenError> {
    if token.len() > MAX {
        return Err(UserTokenError::Malformed);
    }
    let (header, _) = token.split_once('.').ok_or(UserTokenError::Malformed)?;
    let header = phlix_protocol::b64::decode(header).ok_or(UserTokenError::Malformed)?;
    let header: SeenHeader = serde_json::from_slice(&header).map_err(|_| UserTokenError::WrongHeader)?;
    if header.alg != "HS256" || header.typ != "JWT" || header.crit.is_some() {
        return Err(UserTokenError::WrongHeader);
    }
    let mut rules = Validation::new(Algorithm::HS256);
    // The library would read the machine's clock; ours is `now`.
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let claims = decode::<UserClaims>(token, &DecodingKey::from_secret(secret), &rules)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => UserTokenError::BadSignature,
            _ => UserTokenError::Malformed,
        })?
        .claims;
    if claims.iss != ISSUER || claims.aud != AUDIENCE {
        return Err(UserTokenError::WrongParties);
    }
    if claims.kind != kind {
        return Err(UserTokenError::WrongKind);
    }
    let now = now.seconds();
    if now >= claims.exp || claims.nbf.is_some_and(|nbf| now < nbf) {
        return Err(UserTokenError::WrongTime);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use phlix_protocol::b64;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    const SECRET: &[u8] = b"a secret of the tests, 32 bytes+";
    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn claims(kind: Kind) -> UserClaims {
        let (user, session) = (UserId::new(Uuid::from_u128(1)), SessionId::new(Uuid::from_u128(2)));
        UserClaims::new(kind, user, session, NOW, NOW.plus(std::time::Duration::from_secs(60)))
    }

    /// A token with any header and payload, rightly signed by HS256.
    fn forged(header: &Value, payload: &Value) -> String {
        let signed = format!("{}.{}", b64::encode(header.to_string()), b64::encode(payload.to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
        format!("{signed}.{}", b64::encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
    }

    #[test]
    fn a_token_is_believed_by_its_own_verifier_until_its_last_second() {
        let token = sign(&claims(Kind::Access), SECRET);
        assert_eq!(verify(&token, Kind::Access, SECRET, NOW), Ok(claims(Kind::Access)));
        let last = Timestamp::from_seconds(1_000_059);
        assert!(verify(&token, Kind::Access, SECRET, last).is_ok());
        let end = Timestamp::from_seconds(1_000_060);
        assert_eq!(verify(&token, Kind::Access, SECRET, end), Err(UserTokenError::WrongTime));
        let header: Value = serde_json::from_slice(&b64::decode(token.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!(header, json!({"alg": "HS256", "typ": "JWT"}), "as upstream: no kid");
    }

    /// T1, T2: what must never open the door, each with the right signature where it has one.
    #[test]
    fn every_forged_token_is_refused_by_both_verifiers() {
        let good = json!({"alg": "HS256", "typ": "JWT"});
        let payload = |change: &dyn Fn(&mut Value)| {
            let mut payload = serde_json::to_value(claims(Kind::Access)).unwrap();
            change(&mut payload);
            payload
        };
        let plain = payload(&|_| {});
        let forged_list = [
            ("alg none", forged(&json!({"alg": "none", "typ": "JWT"}), &plain)),
            ("alg None", forged(&json!({"alg": "None", "typ": "JWT"}), &plain)),
            ("alg HS384", forged(&json!({"alg": "HS384", "typ": "JWT"}), &plain)),
            ("alg ES256", forged(&json!({"alg": "ES256", "typ": "JWT"}), &plain)),
            ("alg EdDSA", forged(&json!({"alg": "EdDSA", "typ": "JWT"}), &plain)),
            ("alg list", forged(&json!({"alg": ["HS256"], "typ": "JWT"}), &plain)),
            ("no alg", forged(&json!({"typ": "JWT"}), &plain)),
            ("no typ", forged(&json!({"alg": "HS256"}), &plain)),
            ("a ticket's typ", forged(&json!({"alg": "HS256", "typ": "phlix-viewer+jwt"}), &plain)),
            ("crit", forged(&json!({"alg": "HS256", "typ": "JWT", "crit": ["exp"]}), &plain)),
            ("other iss", forged(&good, &payload(&|p| p["iss"] = "peer-hub".into()))),
            ("aud server", forged(&good, &payload(&|p| p["aud"] = "server".into()))),
            ("aud relay-edge", forged(&good, &payload(&|p| p["aud"] = "relay-edge".into()))),
            ("aud list", forged(&good, &payload(&|p| p["aud"] = json!(["hub"])))),
            ("other type", forged(&good, &payload(&|p| p["type"] = "mcp".into()))),
            ("no type", forged(&good, &payload(&|p| drop(p.as_object_mut().unwrap().remove("type"))))),
            ("no sid", forged(&good, &payload(&|p| drop(p.as_object_mut().unwrap().remove("sid"))))),
            ("no exp", forged(&good, &payload(&|p| drop(p.as_object_mut().unwrap().remove("exp"))))),
            ("exp as text", forged(&good, &payload(&|p| p["exp"] = "9999999999".into()))),
            ("expired", forged(&good, &payload(&|p| p["exp"] = 1_000_000.into()))),
            ("not yet", forged(&good, &payload(&|p| p["nbf"] = 1_000_001.into()))),
            ("sub is no id", forged(&good, &payload(&|p| p["sub"] = "' OR 1=1 --".into()))),
            ("payload is a list", forged(&good, &json!([1]))),
        ];
        for (what, token) in &forged_list {
            assert!(verify(token, Kind::Access, SECRET, NOW).is_err(), "access: {what}");
            assert!(verify(token, Kind::Refresh, SECRET, NOW).is_err(), "refresh: {what}");
        }
        // A hostile kid, jku or embedded key is not looked at; the right token with it is still the right token.
        let hostile =
            json!({"alg": "HS256", "typ": "JWT", "kid": "../../etc/passwd", "jku": "http://evil/", "jwk": {"k": "x"}});
        assert!(verify(&forged(&hostile, &plain), Kind::Access, SECRET, NOW).is_ok());
    }

    #[test]
    fn one_kind_is_never_the_other() {
        let (access, refresh) = (sign(&claims(Kind::Access), SECRET), sign(&claims(Kind::Refresh), SECRET));
        assert_eq!(verify(&refresh, Kind::Access, SECRET, NOW), Err(UserTokenError::WrongKind));
        assert_eq!(verify(&access, Kind::Refresh, SECRET, NOW), Err(UserTokenError::WrongKind));
    }

    #[test]
    fn damaged_and_oversized_tokens_are_refused() {
        let token = sign(&claims(Kind::Access), SECRET);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(bytes).unwrap();
            // The last character of a base64url part may carry unused bits; what decodes to the same bytes is refused too.
            assert!(verify(&damaged, Kind::Access, SECRET, NOW).is_err(), "byte {at}");
        }
        let long = format!("{token}.{}", "A".repeat(1 << 20));
        for bad in ["", ".", "..", "a.b", "a.b.c", &long, &token[..token.rfind('.').unwrap() + 1]] {
            assert!(verify(bad, Kind::Access, SECRET, NOW).is_err());
        }
        assert_eq!(
            verify(&token, Kind::Access, b"another secret of 32 bytes......", NOW),
            Err(UserTokenError::BadSignature)
        );
    }
}
