//! The raw mount (wire page s.3.2): a client's own connection to the media server's port, frame by frame, through the hub.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http::Method;
use phlix_tests::legacy::LegacyWorld;
use phlix_tests::relay_peer::{Came, Peer, frame};
use phlix_tests::{Engine, on_both_databases, story};
use serde_json::{Value, json};

const DATA: u8 = 0x05;
const DISCONNECTED: u8 = 0x07;
const ERROR: u8 = 0x08;

const UNAUTHORIZED: u16 = 4401;
const OFFLINE: u16 = 1011;
const TRY_AGAIN_LATER: u16 = 1013;

/// As somebody who is signed in at the media server itself: nobody is vouched for on this path.
const ASK: &[u8] = b"GET /api/v1/libraries HTTP/1.1\r\nHost: home\r\nAuthorization: Bearer home-session\r\n\r\n";

on_both_databases!(a_token_opens_it_and_its_withdrawal_closes_it);

async fn a_token_opens_it_and_its_withdrawal_closes_it(engine: Engine) {
    let world = LegacyWorld::start(engine).await;
    let token = token(&world).await;
    let bearer = format!("Bearer {token}");
    let mut by_header = mount(&world, &[("Authorization", &bearer)]).await;
    let subprotocols = format!("bearer, {token}");
    let mut by_subprotocol = mount(&world, &[("Sec-WebSocket-Protocol", &subprotocols)]).await;
    // Chrome refuses an answer without one.
    assert!(
        by_subprotocol.head.to_lowercase().contains("\r\nsec-websocket-protocol: bearer\r\n"),
        "{}",
        by_subprotocol.head
    );
    for (what, client) in [("header", &mut by_header), ("subprotocol", &mut by_subprotocol)] {
        // Its number for the channel is anything; the answer carries the hub's.
        client.send(&frame(77, DATA, ASK)).await;
        let (channel, answer) = answer(client).await;
        assert!(answer.contains("200 OK") && answer.contains("Films"), "{what}: {answer}");
        assert!(channel > 0 && channel < 0x8000_0000 && channel != 77, "{what}: {channel}");
    }
    let channels = world.legacy.records().await.list("channels").to_vec();
    assert_eq!(channels.len(), 2);
    for channel in &channels {
        channel["told"]["client_id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
        assert_eq!(channel["told"]["session_id"], "");
    }
    // One that leaves ends its channel alone.
    drop(by_header);
    let ended = |count: usize| {
        move |seen: &phlix_tests::legacy::Records| {
            (seen.list("channels").iter().filter(|channel| channel["ended"] == "hub").count() == count).then_some(())
        }
    };
    world.legacy.shows("CLIENT_DISCONNECT", Duration::from_secs(10), ended(1)).await;

    let path = format!("/api/v1/me/servers/{}/relay-token", world.server);
    let gone = world.owner.call(Method::DELETE, &path, None).await;
    assert!(gone.status.is_success(), "{} {}", gone.status, gone.body);
    let begun = std::time::Instant::now();
    let came = by_subprotocol.rest().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "it was cut after {:?}", begun.elapsed());
    assert!(came.contains(&Came::Close(UNAUTHORIZED)), "{came:?}");
    world.legacy.shows("the other's CLIENT_DISCONNECT", Duration::from_secs(10), ended(2)).await;
    assert_eq!(refusal(&world, &[("Authorization", &bearer)]).await, UNAUTHORIZED);
    world.legacy.records().await.unharmed();
}

#[test]
fn frames_of_clients_are_data_or_answered_as_errors() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let bearer = format!("Bearer {}", token(&world).await);
        let mut client = mount(&world, &[("Authorization", &bearer)]).await;
        for kind in [0x03, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12] {
            client.send(&frame(1, kind, b"")).await;
            let error = frame(0, ERROR, br#"{"error":"Unexpected frame type"}"#);
            let Came::Message(came) = client.next().await else { panic!("{kind:02x}") };
            assert_eq!(came[..7], error[..7], "{kind:02x}");
            let told: Value = serde_json::from_slice(&came[7..]).unwrap();
            assert_eq!(told, json!({ "error": "Unexpected frame type" }), "{kind:02x}");
        }
        // The connection stays; frames come in any split.
        for byte in frame(1, DATA, ASK) {
            client.send(&[byte]).await;
        }
        assert!(answer(&mut client).await.1.contains("200 OK"));
        // Who can't be understood is out.
        client.send(&frame(1, 0x13, b"")).await;
        assert_eq!(client.rest().await.last(), Some(&Came::End));
        world.legacy.records().await.unharmed();
    });
}

#[test]
fn a_tunnel_that_goes_is_told() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let bearer = format!("Bearer {}", token(&world).await);
        let mut client = mount(&world, &[("Authorization", &bearer)]).await;
        client.send(&frame(1, DATA, ASK)).await;
        answer(&mut client).await;
        world.legacy.cut().await;
        let Came::Message(came) = client.next().await else { panic!("no DISCONNECTED") };
        assert_eq!((&came[..4], came[4]), (&[0; 4][..], DISCONNECTED));
        let told: Value = serde_json::from_slice(&came[7..]).unwrap();
        assert_eq!(told, json!({ "reason": "server_closed" }));
        assert!(matches!(client.rest().await[..], [Came::Close(_), Came::End]));
    });
}

#[test]
fn who_may_not_is_told_by_a_close_code() {
    story(async {
        let mut world = LegacyWorld::start(Engine::Sqlite).await;
        let token = token(&world).await;
        let user = world.bearer();
        let enrollment = format!("Bearer {}", world.legacy.jwt());
        let good = format!("Bearer {token}");
        for (what, headers) in [
            ("nothing", vec![]),
            ("a user's own token", vec![("Authorization", user.as_str())]),
            ("the server's enrollment", vec![("Authorization", enrollment.as_str())]),
            ("no token at all", vec![("Authorization", "Bearer x")]),
            ("a subprotocol alone", vec![("Sec-WebSocket-Protocol", "bearer")]),
        ] {
            assert_eq!(refusal(&world, &headers).await, UNAUTHORIZED, "{what}");
        }
        let address = world.hub.ready().relay_client();
        // A token in the query is in logs: it opens nothing.
        let target = format!("/client/{}?token={token}", world.server);
        let mut peer = Peer::connect(address, &target, &[]).await.unwrap();
        assert_eq!(peer.next().await, Came::Close(UNAUTHORIZED));
        // Another server than its own.
        let mut peer =
            Peer::connect(address, "/client/99999999-9999-4999-8999-999999999999", &[("Authorization", &good)])
                .await
                .unwrap();
        assert_eq!(peer.next().await, Came::Close(UNAUTHORIZED));
        assert!(Peer::connect(address, "/elsewhere", &[("Authorization", &good)]).await.is_err());
        // A slash at the end, and a query, do no harm.
        for end in ["/", "?x=1"] {
            let target = format!("/client/{}{end}", world.server);
            let mut peer = Peer::connect(address, &target, &[("Authorization", &good)]).await.unwrap();
            peer.send(&frame(1, DATA, ASK)).await;
            assert!(answer(&mut peer).await.1.contains("200 OK"), "{end}");
        }
        world.legacy.kill();
        let offline = async {
            loop {
                match refusal(&world, &[("Authorization", &good)]).await {
                    OFFLINE => return,
                    // The edge has not heard of it yet.
                    0 => {}
                    code => panic!("{code}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), offline).await.unwrap();
        // 30 a minute and address.
        let limited = async {
            loop {
                match refusal(&world, &[]).await {
                    TRY_AGAIN_LATER => return,
                    UNAUTHORIZED => {}
                    code => panic!("{code}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), limited).await.unwrap();
    });
}

async fn token(world: &LegacyWorld) -> String {
    let path = format!("/api/v1/me/servers/{}/relay-token", world.server);
    let made = world.owner.post(&path, &json!({})).await.expect(201);
    assert_eq!(made["server_id"], world.server);
    assert!(made["expires_at"].is_u64(), "{made}");
    made["token"].as_str().unwrap().to_owned()
}

async fn mount(world: &LegacyWorld, headers: &[(&str, &str)]) -> Peer {
    Peer::connect(world.hub.ready().relay_client(), &format!("/client/{}", world.server), headers).await.unwrap()
}

/// The close code after the 101; 0 where it was let in and cut later.
async fn refusal(world: &LegacyWorld, headers: &[(&str, &str)]) -> u16 {
    let mut peer = mount(world, headers).await;
    match peer.next().await {
        Came::Close(code) => code,
        Came::Message(_) => 0,
        Came::End => panic!("closed without a code"),
    }
}

/// The channel and the text of an answer with `Content-Length`.
async fn answer(client: &mut Peer) -> (u32, String) {
    let (mut channel, mut text) = (0, String::new());
    while !text.contains("}]}") && !text.contains("401") {
        let Came::Message(came) = client.next().await else { panic!("ended after {text:?}") };
        assert_eq!(came[4], DATA, "{came:?}");
        channel = u32::from_be_bytes(came[..4].try_into().unwrap());
        text.push_str(&String::from_utf8_lossy(&came[7..]));
    }
    (channel, text)
}
