//! Tokens: what they claim, how they are signed, and when they are believed.
//!
//! Two families. *Hub-signed* tokens (enrollment, tunnel ticket, viewer ticket, edge list) are verified against the
//! hub's key set by key id. *Self-signed* ones (edge identity, request proof, presence) are verified against the one
//! key that their bearer is known by, and are worth something only while fresh. In both, algorithm, `typ`, audience
//! and issuer are pinned by the verifier and never taken from the token (trust s.2.6); `jku`, `x5u` and `jwk` headers
//! are never looked at. There is no clock here: `now` is UTC in unix seconds.

mod claims;
mod grant;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use claims::{
    Access, Cnf, EdgeEntry, EdgeIdentity, EdgeList, Enrollment, Limits, NamedHost, Presence, RequestProof, Tls,
    TunnelTicket, USE_CLIENT, ViewerTicket,
};
pub use grant::{Grant, Libraries, Permission, Scope};

use crate::b64;
use crate::keys::{KeySet, PublicKey, SigningKey};

/// How far two clocks may be apart, in seconds.
//= trust s.2.6
pub const SKEW: i64 = 30;

/// Longest token that is looked at, in bytes. A tunnel ticket with its names is the largest of ours; it must fit into
/// a `hello` of 8 KiB. Edge lists are longer and have their own bound.
pub const MAX_TOKEN: usize = 7 * 1024;

/// Longest edge list, in bytes: about 150 edges.
pub const MAX_EDGE_LIST: usize = 64 * 1024;

/// The issuer of everything that the hub signs.
pub const ISSUER: &str = "phlix-hub";

/// Why a token is not believed. Says nothing of the token's content, so that it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token is malformed")]
    Malformed,
    #[error("token is too long")]
    TooLong,
    #[error("token has the wrong algorithm")]
    WrongAlgorithm,
    #[error("token has the wrong type")]
    WrongType,
    #[error("token names no known key")]
    UnknownKey,
    #[error("token has a bad signature")]
    BadSignature,
    #[error("token has the wrong audience")]
    WrongAudience,
    #[error("token has the wrong issuer")]
    WrongIssuer,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
    #[error("token contradicts itself")]
    Inconsistent,
}

/// Claims that the hub signs.
pub trait HubClaims: Serialize + DeserializeOwned {
    /// Header `typ`.
    const TYP: &'static str;
    /// Claim `aud`.
    const AUD: &'static str;
    /// Longest accepted token, in bytes.
    const MAX: usize = MAX_TOKEN;

    /// Claims `iss` and `aud`.
    fn parties(&self) -> (&str, &str);
    /// Claims `iat` and `exp`, in unix seconds.
    fn times(&self) -> (i64, i64);
    /// Rules between the claims themselves and the key id that signed them.
    fn consistent(&self, _kid: &str) -> bool {
        true
    }
}

/// Claims that their bearer signs with its own key.
pub trait SelfClaims: Serialize + DeserializeOwned {
    /// Header `typ`.
    const TYP: &'static str;
    /// How old it may be, in seconds.
    const MAX_AGE: i64;

    /// Claim `iat`, in unix seconds.
    fn issued_at(&self) -> i64;
    /// Claim `aud`, for those that have one, and what it must be.
    fn audience(&self) -> Option<(&str, &'static str)> {
        None
    }
}

/// Signs claims with a key of the hub.
pub fn sign<C: HubClaims>(claims: &C, key: &SigningKey) -> String {
    encode(C::TYP, claims, key)
}

/// Verifies a hub-signed token.
pub fn verify<C: HubClaims>(token: &str, keys: &KeySet, now: i64) -> Result<C, TokenError> {
    let header = read_header(token, C::MAX, C::TYP)?;
    let kid = header.kid.ok_or(TokenError::UnknownKey)?;
    let key = keys.get(&kid).ok_or(TokenError::UnknownKey)?;
    let claims: C = decode(token, key)?;
    let (issuer, audience) = claims.parties();
    if issuer != ISSUER {
        return Err(TokenError::WrongIssuer);
    }
    if audience != C::AUD {
        return Err(TokenError::WrongAudience);
    }
    let (issued, expires) = claims.times();
    if now >= expires.saturating_add(SKEW) {
        return Err(TokenError::Expired);
    }
    if issued > now.saturating_add(SKEW) {
        return Err(TokenError::NotYetValid);
    }
    if !claims.consistent(&kid) {
        return Err(TokenError::Inconsistent);
    }
    Ok(claims)
}

/// Signs claims with the bearer's own key.
pub fn sign_self<C: SelfClaims>(claims: &C, key: &SigningKey) -> String {
    encode(C::TYP, claims, key)
}

/// Verifies a self-signed token against the key that its bearer is known by.
pub fn verify_self<C: SelfClaims>(token: &str, key: &PublicKey, now: i64) -> Result<C, TokenError> {
    let header = read_header(token, MAX_TOKEN, C::TYP)?;
    if header.kid.is_some_and(|kid| kid != key.kid()) {
        return Err(TokenError::UnknownKey);
    }
    let claims: C = decode(token, key)?;
    if claims.audience().is_some_and(|(is, must_be)| is != must_be) {
        return Err(TokenError::WrongAudience);
    }
    if now > claims.issued_at().saturating_add(C::MAX_AGE + SKEW) {
        return Err(TokenError::Expired);
    }
    if claims.issued_at() > now.saturating_add(SKEW) {
        return Err(TokenError::NotYetValid);
    }
    Ok(claims)
}

/// The claims of a token whose signature is *not* checked: to learn which key to look up, or when to renew one's own.
/// Nothing it says may be believed.
pub fn peek<C: DeserializeOwned>(token: &str) -> Option<C> {
    if token.len() > MAX_EDGE_LIST {
        return None;
    }
    let mut parts = token.split('.');
    let (_, payload) = (parts.next()?, parts.next()?);
    parts.next()?;
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&b64::decode(payload)?).ok()
}

/// The header fields that a verifier looks at.
#[derive(serde::Deserialize)]
struct SeenHeader {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

fn read_header(token: &str, max: usize, typ: &str) -> Result<SeenHeader, TokenError> {
    if token.len() > max {
        return Err(TokenError::TooLong);
    }
    let (first, rest) = token.split_once('.').ok_or(TokenError::Malformed)?;
    if rest.matches('.').count() != 1 {
        return Err(TokenError::Malformed);
    }
    let bytes = b64::decode(first).ok_or(TokenError::Malformed)?;
    let header: SeenHeader = serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)?;
    if header.alg != "EdDSA" {
        return Err(TokenError::WrongAlgorithm);
    }
    // RFC 7515 s.4.1.11: an extension that must be understood and isn't means refusal. We know none.
    if header.crit.is_some() {
        return Err(TokenError::Malformed);
    }
    if header.typ.as_deref() != Some(typ) {
        return Err(TokenError::WrongType);
    }
    Ok(header)
}

fn encode<C: Serialize>(typ: &str, claims: &C, key: &SigningKey) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(typ.to_owned());
    header.kid = Some(key.kid());
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&key.pkcs8()))
        .expect("claims are plain structs and the key is a well-formed Ed25519 key")
}

fn decode<C: DeserializeOwned>(token: &str, key: &PublicKey) -> Result<C, TokenError> {
    let mut rules = Validation::new(Algorithm::EdDSA);
    // The library would read the system's clock: its time checks are off, and ours compare with `now`.
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules.required_spec_claims.clear();
    let key = DecodingKey::from_ed_components(&b64::encode(key.as_bytes())).map_err(|_| TokenError::UnknownKey)?;
    match jsonwebtoken::decode(token, &key, &rules) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::BadSignature,
            _ => TokenError::Malformed,
        }),
    }
}

#[cfg(test)]
mod tests;
