//! The token table (promises T1, T2, T3): each way to forge or misuse a token, and what the verifier says.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ids::{ServerId, TokenId};

const NOW: i64 = 1_790_000_000;

fn hub() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn keys() -> KeySet {
    KeySet::new([hub().public()])
}

fn viewer() -> ViewerTicket {
    ViewerTicket {
        iss: ISSUER.into(),
        sub: "00000000-0000-4000-8000-000000000001".parse().expect("id"),
        aud: ViewerTicket::AUD.into(),
        iat: NOW,
        exp: NOW + 600,
        jti: "00000000-0000-4000-8000-000000000002".parse().expect("id"),
        sid: "00000000-0000-4000-8000-000000000003".parse().expect("id"),
        server_id: "00000000-0000-4000-8000-000000000004".parse().expect("id"),
        share_id: None,
        libs: Libraries::All,
        perm: Permission::ReadWrite,
        scope: Scope::Name,
        host: Some("a.hub.localhost".parse().expect("host")),
        edge: None,
        usage: None,
        rate: 0,
        streams: 0,
        rev: 1,
    }
}

fn forged(header: Value, claims: &Value, signer: impl FnOnce(&str) -> Vec<u8>) -> String {
    let input = format!("{}.{}", b64::encode(header.to_string()), b64::encode(claims.to_string()));
    let signature = signer(&input);
    format!("{input}.{}", b64::encode(signature))
}

fn well_signed(header: Value, claims: &Value) -> String {
    forged(header, claims, |input| hub().sign(input.as_bytes()).to_vec())
}

fn refused(token: &str, why: TokenError) {
    assert_eq!(verify::<ViewerTicket>(token, &keys(), NOW).map(|_| ()), Err(why));
}

#[test]
fn a_good_ticket_is_believed_until_its_end() {
    let token = sign(&viewer(), &hub());
    assert_eq!(verify::<ViewerTicket>(&token, &keys(), NOW), Ok(viewer()));
    assert!(verify::<ViewerTicket>(&token, &keys(), NOW + 600 + SKEW - 1).is_ok());
    assert_eq!(verify::<ViewerTicket>(&token, &keys(), NOW + 600 + SKEW), Err(TokenError::Expired));
    assert_eq!(verify::<ViewerTicket>(&token, &keys(), NOW - SKEW - 1), Err(TokenError::NotYetValid));
}

#[test]
fn algorithms_other_than_eddsa_are_refused() {
    let claims = serde_json::to_value(viewer()).expect("claims");
    let kid = hub().kid();
    for alg in [json!("none"), json!("None"), json!("ES256"), json!("RS256"), json!("eddsa"), json!("HS256")] {
        let header = json!({"alg": alg, "typ": ViewerTicket::TYP, "kid": kid});
        refused(&forged(header, &claims, |_| Vec::new()), TokenError::WrongAlgorithm);
    }
    for alg in [json!(["EdDSA"]), json!(null), json!(1)] {
        refused(
            &well_signed(json!({"alg": alg, "typ": ViewerTicket::TYP, "kid": kid}), &claims),
            TokenError::Malformed,
        );
    }
    refused(&well_signed(json!({"typ": ViewerTicket::TYP, "kid": kid}), &claims), TokenError::Malformed);

    // HS256 with the public key as the secret: the classic confusion.
    let mut header = Header::new(Algorithm::HS256);
    header.typ = Some(ViewerTicket::TYP.into());
    header.kid = Some(kid);
    let secret = EncodingKey::from_secret(hub().public().as_bytes());
    refused(&jsonwebtoken::encode(&header, &claims, &secret).expect("encodes"), TokenError::WrongAlgorithm);
}

#[test]
fn header_tricks_are_refused() {
    let claims = serde_json::to_value(viewer()).expect("claims");
    let with = |extra: Value| {
        let mut header = json!({"alg": "EdDSA", "typ": ViewerTicket::TYP, "kid": hub().kid()});
        for (key, value) in extra.as_object().expect("object") {
            header[key] = value.clone();
        }
        well_signed(header, &claims)
    };
    for kid in ["../../etc/passwd", "' OR 1=1 --", "http://localhost/jwks", "", "\0"] {
        refused(&with(json!({"kid": kid})), TokenError::UnknownKey);
    }
    refused(&with(json!({"kid": null})), TokenError::UnknownKey);
    refused(&with(json!({"kid": "k".repeat(1 << 20)})), TokenError::TooLong);
    refused(&with(json!({"crit": ["exp"]})), TokenError::Malformed);
    for typ in ["JWT", "phlix-tunnel+jwt", "phlix-edges+jwt", "PHLIX-VIEWER+JWT", ""] {
        refused(&with(json!({"typ": typ})), TokenError::WrongType);
    }
    refused(&with(json!({"typ": null})), TokenError::WrongType);

    // An embedded key or a key's address is not even looked at: the named key decides.
    let stranger = SigningKey::from_seed(&[9; 32]);
    let header = json!({"alg": "EdDSA", "typ": ViewerTicket::TYP, "kid": hub().kid(),
        "jwk": stranger.public().jwk(), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"});
    refused(&forged(header, &claims, |input| stranger.sign(input.as_bytes()).to_vec()), TokenError::BadSignature);
}

#[test]
fn a_strangers_key_is_refused() {
    let stranger = SigningKey::from_seed(&[9; 32]);
    refused(&sign(&viewer(), &stranger), TokenError::UnknownKey);
}

#[test]
fn claims_of_another_audience_issuer_or_type_are_refused() {
    refused(&sign(&ViewerTicket { aud: "server".into(), ..viewer() }, &hub()), TokenError::WrongAudience);
    refused(&sign(&ViewerTicket { iss: "phlex-hub".into(), ..viewer() }, &hub()), TokenError::WrongIssuer);
    refused(&sign(&ViewerTicket { host: None, ..viewer() }, &hub()), TokenError::Inconsistent);

    let header = json!({"alg": "EdDSA", "typ": ViewerTicket::TYP, "kid": hub().kid()});
    for missing in ["exp", "iat", "aud", "iss", "sub", "server_id", "perm", "scope", "rev"] {
        let mut claims = serde_json::to_value(viewer()).expect("claims");
        claims.as_object_mut().expect("object").remove(missing);
        refused(&well_signed(header.clone(), &claims), TokenError::Malformed);
    }
    let mut claims = serde_json::to_value(viewer()).expect("claims");
    claims["exp"] = json!("never");
    refused(&well_signed(header, &claims), TokenError::Malformed);
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let token = sign(&viewer(), &hub());
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ascii");
        if changed != token {
            assert!(verify::<ViewerTicket>(&changed, &keys(), NOW).is_err(), "byte {index}");
        }
    }
}

#[test]
fn an_enrollment_names_its_key_and_its_server_twice() {
    let server: ServerId = "00000000-0000-4000-8000-000000000004".parse().expect("id");
    let enrollment = Enrollment {
        iss: ISSUER.into(),
        sub: server,
        aud: Enrollment::AUD.into(),
        exp: NOW + 604_800,
        iat: NOW,
        kid: hub().kid(),
        hub_base_url: "http://localhost:8800".into(),
        server_id: server,
        cnf: Some(Cnf { jwk: hub().public() }),
        generation: Some(1),
    };
    let check = |claims: &Enrollment| verify::<Enrollment>(&sign(claims, &hub()), &keys(), NOW).map(|_| ());
    assert_eq!(check(&enrollment), Ok(()));
    assert_eq!(check(&Enrollment { kid: "other".into(), ..enrollment.clone() }), Err(TokenError::Inconsistent));
    let other = "00000000-0000-4000-8000-000000000005".parse().expect("id");
    assert_eq!(check(&Enrollment { sub: other, ..enrollment }), Err(TokenError::Inconsistent));
}

#[test]
fn a_self_signed_token_is_good_while_fresh_and_for_its_audience() {
    let edge = SigningKey::from_seed(&[3; 32]);
    let identity = EdgeIdentity {
        sub: "00000000-0000-4000-8000-000000000006".parse().expect("id"),
        aud: EdgeIdentity::AUD.into(),
        iat: NOW,
        jti: "j".into(),
        htm: "POST".into(),
        htu: "/edge/v1/register".into(),
        bh: None,
    };
    let token = sign_self(&identity, &edge);
    let check = |now| verify_self::<EdgeIdentity>(&token, &edge.public(), now).map(|_| ());
    assert_eq!(check(NOW + 60 + SKEW), Ok(()));
    assert_eq!(check(NOW + 61 + SKEW), Err(TokenError::Expired));
    assert_eq!(check(NOW - SKEW - 1), Err(TokenError::NotYetValid));
    assert_eq!(verify_self::<EdgeIdentity>(&token, &hub().public(), NOW), Err(TokenError::UnknownKey));
    assert_eq!(verify_self::<Presence>(&token, &edge.public(), NOW), Err(TokenError::WrongType));
    let foreign = sign_self(&EdgeIdentity { aud: "relay-edge".into(), ..identity }, &edge);
    assert_eq!(verify_self::<EdgeIdentity>(&foreign, &edge.public(), NOW), Err(TokenError::WrongAudience));
}

#[test]
fn an_empty_list_of_libraries_is_nothing_and_null_is_all() {
    assert!(serde_json::from_str::<Libraries>("null").expect("null").is_all());
    let none: Libraries = serde_json::from_str("[]").expect("list");
    assert!(!none.is_all() && !none.contains("x"));
    assert_eq!(serde_json::to_string(&Libraries::All).expect("serializes"), "null");
}

proptest! {
    #[test]
    fn verifying_never_panics(token in "\\PC{0,300}") {
        let _ = verify::<ViewerTicket>(&token, &keys(), NOW);
        let _ = verify_self::<Presence>(&token, &hub().public(), NOW);
        let _ = peek::<Value>(&token);
    }

    #[test]
    fn tickets_round_trip(rate: u64, streams: u32, rev: u64, libs in proptest::option::of(proptest::collection::vec("[a-z0-9-]{0,40}", 0..4)), jti: u128) {
        let ticket = ViewerTicket {
            rate, streams, rev,
            libs: libs.into(),
            jti: TokenId::new(uuid::Uuid::from_u128(jti)),
            ..viewer()
        };
        prop_assert_eq!(verify::<ViewerTicket>(&sign(&ticket, &hub()), &keys(), NOW), Ok(ticket));
    }
}
