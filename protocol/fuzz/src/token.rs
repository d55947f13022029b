//! Tokens: a token is believed as one kind at most, and only as long as its signature and its time are good.

use phlix_protocol::b64;
use phlix_protocol::keys::{KeySet, SigningKey};
use phlix_protocol::token::{
    EdgeIdentity, EdgeList, Enrollment, Libraries, Permission, Presence, RequestProof, TunnelTicket, ViewerTicket,
    peek, verify, verify_self,
};

use crate::input::Input;

/// 2030-01-01.
const NOW: i64 = 1_893_456_000;

/// As how many kinds a token is believed.
fn kinds(token: &str, key: &SigningKey, now: i64) -> usize {
    let keys = KeySet::new([key.public()]);
    let public = key.public();
    [
        verify::<Enrollment>(token, &keys, now).is_ok(),
        verify::<TunnelTicket>(token, &keys, now).is_ok(),
        verify::<ViewerTicket>(token, &keys, now).is_ok(),
        verify::<EdgeList>(token, &keys, now).is_ok(),
        verify_self::<EdgeIdentity>(token, &public, now).is_ok(),
        verify_self::<RequestProof>(token, &public, now).is_ok(),
        verify_self::<Presence>(token, &public, now).is_ok(),
    ]
    .into_iter()
    .filter(|believed| *believed)
    .count()
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let key = SigningKey::from_seed(&[7; 32]);
    if input.flag() {
        let token = String::from_utf8_lossy(input.rest());
        let _ = peek::<ViewerTicket>(&token);
        let _ = peek::<TunnelTicket>(&token);
        assert!(kinds(&token, &key, NOW) <= 1);
        return;
    }
    // Header and claims by the fuzzer, the signature by us: the claims' own rules are reached.
    let header = match input.byte() % 9 {
        0 => String::from_utf8_lossy(input.some()).into_owned(),
        n => {
            let typ = [
                "JWT",
                "phlix-tunnel+jwt",
                "phlix-viewer+jwt",
                "phlix-edges+jwt",
                "phlix-edge+jwt",
                "phlix-proof+jwt",
                "phlix-presence+jwt",
                "phlix-unknown+jwt",
            ][usize::from(n) - 1];
            format!(r#"{{"alg":"EdDSA","typ":"{typ}","kid":"{}"}}"#, key.kid())
        }
    };
    let claims = input.rest();
    let signed = format!("{}.{}", b64::encode(header), b64::encode(claims));
    let token = format!("{signed}.{}", b64::encode(key.sign(signed.as_bytes())));
    let _ = peek::<ViewerTicket>(&token);
    let believed = kinds(&token, &key, NOW);
    assert!(believed <= 1, "a token of one kind is never another");
    if believed == 1 {
        assert_eq!(kinds(&token, &SigningKey::from_seed(&[8; 32]), NOW), 0, "signed by another");
        assert_eq!(kinds(&token, &key, i64::MAX), 0, "believed for ever");
    }
    if let Ok(text) = std::str::from_utf8(claims) {
        grants(text);
    }
}

fn grants(text: &str) {
    let list: Option<Vec<String>> =
        if text.is_empty() { None } else { Some(text.split(',').map(str::to_owned).collect()) };
    let libraries = Libraries::from(list.clone());
    assert_eq!(libraries.is_all(), list.is_none());
    for id in list.iter().flatten() {
        assert!(libraries.contains(id));
    }
    assert!(Permission::Read < Permission::ReadWrite);
}
