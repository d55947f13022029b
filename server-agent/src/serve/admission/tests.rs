#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use phlix_protocol::ids::{EdgeId, ShareId, TokenId};
use phlix_protocol::keys::{KeySet, SigningKey};
use phlix_protocol::token::{self, Cnf, ISSUER, Libraries, Limits, NamedHost, Tls};

use super::*;
use crate::tests::hub::{host, viewer_claims};

const NOW: i64 = 1_700_000_000;

/// The hub's keys, counting how often they are asked.
struct Keys {
    key: SigningKey,
    asked: AtomicUsize,
    now: i64,
}

impl VerifiesTickets for Keys {
    async fn verify_ticket(&self, ticket: &str) -> Result<ViewerTicket, TokenError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        token::verify(ticket, &KeySet::new([self.key.public()]), self.now)
    }
}

fn keys() -> Keys {
    Keys { key: SigningKey::from_seed(&[5; 32]), asked: AtomicUsize::new(0), now: NOW }
}

fn server(number: u128) -> ServerId {
    ServerId::new(uuid::Uuid::from_u128(number))
}

fn ours() -> TunnelTicket {
    let named = |name: &str, access| NamedHost { host: host(name), access, tls: Tls::Terminated };
    TunnelTicket {
        iss: ISSUER.into(),
        sub: server(1),
        aud: "relay-edge".into(),
        iat: NOW,
        exp: NOW + 86_400,
        jti: TokenId::new(uuid::Uuid::from_u128(1)),
        server_id: server(1),
        cnf: Cnf { jwk: SigningKey::from_seed(&[6; 32]).public() },
        generation: 1,
        names: vec![
            named("a.hub.localhost", Access::Protected),
            named("b.hub.localhost", Access::Protected),
            named("open.hub.localhost", Access::Open),
        ],
        limits: Limits { streams: 10, header_bytes: 65_536 },
        rev: 1,
    }
}

async fn admit(admission: &Admission, keys: &Keys, name: &str, ticket: Option<String>) -> Result<(), Refusal> {
    admission.admit(keys, keys.now, &ours(), &StreamHeader::http(host(name), ticket)).await
}

/// Bends a good ticket for `a.hub.localhost` and shows it there.
async fn with(bend: impl FnOnce(&mut ViewerTicket)) -> Result<(), Refusal> {
    let keys = keys();
    let mut claims = viewer_claims(server(1), "a.hub.localhost", NOW);
    bend(&mut claims);
    admit(&Admission::new(10), &keys, "a.hub.localhost", Some(token::sign(&claims, &keys.key))).await
}

#[tokio::test]
async fn a_good_ticket_opens_its_name() {
    assert_eq!(with(|_| ()).await, Ok(()));
    // An exchanged ticket is bound to an edge, which is the edge's business.
    assert_eq!(with(|ticket| ticket.edge = Some(EdgeId::new(uuid::Uuid::from_u128(9)))).await, Ok(()));
    assert_eq!(with(|ticket| ticket.share_id = Some(ShareId::new(uuid::Uuid::from_u128(9)))).await, Ok(()));
    assert_eq!(with(|ticket| ticket.exp = NOW - 29).await, Ok(()));
}

#[tokio::test]
async fn what_a_ticket_does_not_say_it_does_not_open() {
    assert_eq!(with(|ticket| ticket.server_id = server(2)).await, Err(Refusal::OtherServer));
    assert_eq!(with(|ticket| ticket.host = Some(host("b.hub.localhost"))).await, Err(Refusal::OtherHost));
    assert_eq!(with(|ticket| ticket.scope = Scope::Proxy).await, Err(Refusal::OtherScope));
    assert_eq!(with(|ticket| ticket.libs = Libraries::Only(vec!["l".into()])).await, Err(Refusal::Libraries));
    assert_eq!(with(|ticket| ticket.libs = Libraries::Only(vec![])).await, Err(Refusal::Libraries));
    let everywhere = with(|ticket| {
        ticket.host = None;
        ticket.edge = Some(EdgeId::new(uuid::Uuid::from_u128(9)));
    });
    assert_eq!(everywhere.await, Err(Refusal::OtherHost));
    assert_eq!(with(|ticket| ticket.exp = NOW - 30).await, Err(Refusal::Ticket(TokenError::Expired)));
    assert_eq!(with(|ticket| ticket.iat = NOW + 31).await, Err(Refusal::Ticket(TokenError::NotYetValid)));
    assert_eq!(with(|ticket| ticket.aud = "server".into()).await, Err(Refusal::Ticket(TokenError::WrongAudience)));
    assert_eq!(with(|ticket| ticket.iss = "me".into()).await, Err(Refusal::Ticket(TokenError::WrongIssuer)));
}

#[tokio::test]
async fn tokens_of_another_kind_or_signer_open_nothing() {
    let keys = keys();
    let admission = Admission::new(10);
    let claims = viewer_claims(server(1), "a.hub.localhost", NOW);
    let stranger = token::sign(&claims, &SigningKey::from_seed(&[7; 32]));
    let good = token::sign(&claims, &keys.key);
    let (head, rest) = good.split_once('.').unwrap();
    let (payload, _) = rest.split_once('.').unwrap();
    let none = format!("{}.{payload}.", phlix_protocol::b64::encode(r#"{"alg":"none","typ":"phlix-viewer+jwt"}"#));
    let other_signature = phlix_protocol::b64::encode(SigningKey::from_seed(&[7; 32]).sign(b"x"));
    for (shown, refused) in [
        (stranger, TokenError::UnknownKey),
        (token::sign(&ours(), &keys.key), TokenError::WrongType),
        (none, TokenError::WrongAlgorithm),
        (format!("{head}.{payload}.{other_signature}"), TokenError::BadSignature),
        (String::new(), TokenError::Malformed),
        ("x".repeat(8_000), TokenError::TooLong),
    ] {
        assert_eq!(admit(&admission, &keys, "a.hub.localhost", Some(shown)).await, Err(Refusal::Ticket(refused)));
    }
}

#[tokio::test]
async fn names_and_kinds_that_are_not_ours_are_refused_before_any_ticket_is_read() {
    let keys = keys();
    let admission = Admission::new(10);
    let ticket = || Some(token::sign(&viewer_claims(server(1), "a.hub.localhost", NOW), &keys.key));
    assert_eq!(admit(&admission, &keys, "c.hub.localhost", ticket()).await, Err(Refusal::Name));
    for kind in [
        StreamKind::Tcp { origin: "ssh".into(), peer: "1.2.3.4:5".into() },
        StreamKind::Tls { peer: "1.2.3.4:5".into(), sni: "a.hub.localhost".into() },
    ] {
        let header = StreamHeader { kind, ..StreamHeader::http(host("a.hub.localhost"), ticket()) };
        assert_eq!(admission.admit(&keys, NOW, &ours(), &header).await, Err(Refusal::Kind));
    }
    assert_eq!(keys.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn only_a_name_that_the_hub_calls_open_needs_no_ticket() {
    let keys = keys();
    let admission = Admission::new(10);
    assert_eq!(admit(&admission, &keys, "open.hub.localhost", None).await, Ok(()));
    assert_eq!(admit(&admission, &keys, "a.hub.localhost", None).await, Err(Refusal::NoTicket));
}

#[tokio::test]
async fn a_verified_ticket_is_remembered_for_its_name_until_it_ends() {
    let mut keys = keys();
    let admission = Admission::new(10);
    let ticket = token::sign(&viewer_claims(server(1), "a.hub.localhost", NOW), &keys.key);
    for _ in 0..3 {
        assert_eq!(admit(&admission, &keys, "a.hub.localhost", Some(ticket.clone())).await, Ok(()));
    }
    assert_eq!(keys.asked.load(Ordering::Relaxed), 1);
    assert_eq!(admit(&admission, &keys, "b.hub.localhost", Some(ticket.clone())).await, Err(Refusal::OtherHost));
    keys.now = NOW + 600 + SKEW;
    let late = admit(&admission, &keys, "a.hub.localhost", Some(ticket)).await;
    assert_eq!(late, Err(Refusal::Ticket(TokenError::Expired)));
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let keys = keys();
    let admission = Admission::new(4);
    for _ in 0..20 {
        let ticket = token::sign(&viewer_claims(server(1), "a.hub.localhost", NOW), &keys.key);
        assert_eq!(admit(&admission, &keys, "a.hub.localhost", Some(ticket)).await, Ok(()));
        assert!(admission.lock().len() <= 4);
    }
    // Refused ones leave nothing behind.
    let before = admission.lock().len();
    let _ = admit(&admission, &keys, "a.hub.localhost", Some("x.y.z".into())).await;
    assert_eq!(admission.lock().len(), before);
}
