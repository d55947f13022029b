//! Who gets in, and who is put out.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt as _;
use phlix_protocol::b64;
use phlix_protocol::ids::{ServerId, ShareId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{self, Access, Libraries, Scope, ViewerTicket};
use phlix_protocol::uplink::{ExchangeReply, Selector, ServerKind};

use super::hub::other_edge;
use super::viewer::Viewer;
use super::world::{NAME, OPEN, World, bare, until};
use crate::{clock, random};

fn with(ticket: &str) -> Request<super::viewer::ViewerBody> {
    bare(Request::builder().uri("/hello").header("host", NAME).header("x-phlix-ticket", ticket))
}

#[tokio::test]
async fn every_wrong_ticket_is_refused_at_a_name() {
    let world = World::start().await;
    let agent = world.tunnel().await;
    let good = world.ticket();
    let signed = |change: &dyn Fn(&mut ViewerTicket)| {
        let mut ticket = good.clone();
        change(&mut ticket);
        world.hub.sign(&ticket)
    };
    let valid = world.hub.sign(&good);
    let (head, rest) = valid.split_once('.').unwrap();
    let payload = rest.split('.').next().unwrap();
    let public = world.hub.key.public();
    let hs256 = {
        let kid = public.kid();
        let header = b64::encode(format!(r#"{{"alg":"HS256","typ":"phlix-viewer+jwt","kid":"{kid}"}}"#));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
        let input = format!("{header}.{payload}");
        format!("{input}.{}", b64::encode(aws_lc_rs::hmac::sign(&key, input.as_bytes())))
    };
    let unsigned = format!("{}.{payload}.", b64::encode(r#"{"alg":"none","typ":"phlix-viewer+jwt"}"#));
    let tunnel = world.hub.tunnel_ticket(world.server, &world.server_key, &[]);
    let mut spoilt = valid.clone().into_bytes();
    *spoilt.last_mut().unwrap() = if spoilt.last() == Some(&b'A') { b'E' } else { b'A' };
    let here = world.edge_id;
    let wrong: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("no JWT", "abc".into()),
        ("alg none", unsigned),
        ("HS256 by the public key", hs256),
        ("another kid", token::sign(&good, &SigningKey::from_seed(&random::bytes()))),
        ("a tunnel's ticket", token::sign(&tunnel, &world.hub.key)),
        ("no signature", format!("{head}.{payload}.")),
        ("a spoilt signature", String::from_utf8(spoilt).unwrap()),
        ("wrong aud", signed(&|ticket| ticket.aud = "server".into())),
        ("wrong iss", signed(&|ticket| ticket.iss = "evil".into())),
        ("expired", signed(&|ticket| ticket.exp = clock::unix_now() - 31)),
        ("not yet", signed(&|ticket| ticket.iat = clock::unix_now() + 60)),
        ("another server", signed(&|ticket| ticket.server_id = ServerId::new(random::uuid()))),
        ("another host", signed(&|ticket| ticket.host = Some(OPEN.parse().unwrap()))),
        ("another edge", signed(&|ticket| ticket.edge = Some(other_edge()))),
        (
            "no host",
            signed(&|ticket| {
                ticket.host = None;
                ticket.edge = Some(here);
            }),
        ),
        ("bound to nothing", signed(&|ticket| ticket.host = None)),
        ("the proxy's scope", signed(&|ticket| ticket.scope = Scope::Proxy)),
        ("some libraries", signed(&|ticket| ticket.libs = Libraries::Only(vec!["1".into()]))),
    ];
    let mut viewer = world.h1(NAME).await;
    for (what, ticket) in wrong {
        let answer = viewer.fetch(with(&ticket)).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "auth.required"), "{what}");
        let cookie =
            Request::builder().uri("/").header("host", NAME).header("cookie", format!("__Host-phlix-v={ticket}"));
        let answer = viewer.fetch(bare(cookie)).await;
        assert_eq!(answer.status, 401, "{what} as a cookie");
    }
    let twice = Request::builder().uri("/").header("host", NAME).header("x-phlix-ticket", &valid);
    assert_eq!(viewer.fetch(bare(twice.header("x-phlix-ticket", &valid))).await.status, 401);
    assert_eq!(agent.headers().len(), 0, "nothing of it went down the tunnel");

    for good in
        [valid, signed(&|ticket| ticket.edge = Some(here)), signed(&|ticket| ticket.usage = Some("client".into()))]
    {
        assert_eq!(viewer.fetch(with(&good)).await.status, 200);
    }
}

#[tokio::test]
async fn a_ticket_of_a_revision_that_is_not_reached_waits_for_it_and_no_longer() {
    let world = World::with(|config| config.timeouts.uplink = Duration::from_millis(200)).await;
    let _agent = world.tunnel().await;
    let future = world.hub.sign(&ViewerTicket { rev: 1_000, ..world.ticket() });
    assert_eq!(world.h1(NAME).await.fetch(with(&future)).await.status, 401);
}

#[tokio::test]
async fn a_browser_signs_in_at_a_name_without_a_second_password() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let mut browser = world.h1(NAME).await;
    let page = |path: &str, cookie: &str| {
        let request = Request::builder().uri(path).header("host", NAME).header("accept", "text/html");
        bare(if cookie.is_empty() { request } else { request.header("cookie", cookie) })
    };

    let asked = browser.fetch(page("/web/?a=b", "")).await;
    assert_eq!((asked.status, asked.header("location")), (302, "/.phlix/start?return=%2Fweb%2F%3Fa%3Db"));

    let started = browser.fetch(page(asked.header("location"), "")).await;
    assert_eq!((started.status, started.header("cache-control")), (302, "no-store"));
    let cookie = started.header("set-cookie");
    for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=300"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let hub: http::Uri = started.header("location").parse().unwrap();
    assert_eq!(hub.path(), "/authorize-name");
    assert_eq!(hub.host(), Some("localhost"));
    let of = |key: &str| {
        let query = url::form_urlencoded::parse(hub.query().unwrap().as_bytes());
        query.into_owned().find(|(name, _)| name == key).unwrap().1
    };
    assert_eq!(of("host"), NAME);

    // Somebody else's state, no cookie, a wrong code: no ticket.
    let (state, challenge) = (of("state"), of("challenge"));
    world.hub.code("code", &challenge, &world.ticket());
    for (path, cookie) in [
        (format!("/.phlix/finish?code=code&state=x{state}"), cookie.as_str()),
        (format!("/.phlix/finish?code=code&state={state}"), ""),
        (format!("/.phlix/finish?code=wrong&state={state}"), cookie.as_str()),
        (format!("/.phlix/finish?state={state}"), cookie.as_str()),
    ] {
        let answer = browser.fetch(page(&path, cookie)).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(!answer.headers.get_all("set-cookie").iter().any(|set| set.to_str().unwrap().contains("phlix-v")));
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
    }

    let finish = format!("/.phlix/finish?code=code&state={state}");
    let finished = browser.fetch(page(&finish, &cookie)).await;
    assert_eq!((finished.status, finished.header("location")), (302, "/web/?a=b"));
    let set: Vec<_> =
        finished.headers.get_all("set-cookie").iter().map(|set| set.to_str().unwrap().to_owned()).collect();
    assert!(set[0].starts_with("__Host-phlix-v=") && set[1].starts_with("__Host-phlix-start=;"), "{set:?}");
    let ticket = set[0].split(';').next().unwrap();
    assert_eq!(browser.fetch(page("/web/?a=b", ticket)).await.status, 200);
    assert!(!world.origin.last_head().headers.contains_key("cookie"));

    // A code is good once.
    assert_eq!(browser.fetch(page(&finish, &cookie)).await.status, 400);
}

#[tokio::test]
async fn a_code_for_another_name_signs_nobody_in() {
    let world = World::start().await;
    let started = bare(Request::builder().uri("/.phlix/start").header("host", NAME));
    let mut browser = world.h1(NAME).await;
    let started = browser.fetch(started).await;
    let query = started.header("location").split_once('?').unwrap().1.to_owned();
    let of =
        |key: &str| url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == key).unwrap().1.into_owned();
    world.hub.code("code", &of("challenge"), &world.hub.viewer_ticket(world.server, OPEN));
    let finish = Request::builder()
        .uri(format!("/.phlix/finish?code=code&state={}", of("state")))
        .header("host", NAME)
        .header("cookie", started.header("set-cookie").split(';').next().unwrap());
    assert_eq!(browser.fetch(bare(finish)).await.status, 400);
}

#[tokio::test]
async fn a_sibling_names_page_does_nothing_with_a_viewers_cookie() {
    let world = World::start().await;
    let agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let mut viewer = world.h2(NAME).await;
    let from = |site: &str| {
        Request::builder()
            .uri("/hello")
            .header("host", NAME)
            .header("cookie", format!("__Host-phlix-v={ticket}"))
            .header("sec-fetch-site", site)
    };
    for site in ["same-site", "cross-site"] {
        let answer = viewer.fetch(bare(from(site))).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "request.cross_site"));
    }
    assert_eq!(agent.headers().len(), 0);
    assert_eq!(viewer.fetch(bare(from("same-origin"))).await.status, 200);
    let link = from("cross-site").header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document");
    assert_eq!(viewer.fetch(bare(link)).await.status, 200);
}

#[tokio::test]
async fn a_cookie_past_half_its_life_is_set_anew() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let now = clock::unix_now();
    let old = world.hub.sign(&ViewerTicket { iat: now - 400, exp: now + 200, ..world.ticket() });
    let fresh = world.hub.renewal(&old, &world.ticket());
    let mut viewer = world.h1(NAME).await;
    let request =
        || bare(Request::builder().uri("/").header("host", NAME).header("cookie", format!("__Host-phlix-v={old}")));
    until(async || {
        let answer = viewer.fetch(request()).await;
        assert_eq!(answer.status, 200);
        answer.header("set-cookie").starts_with(&format!("__Host-phlix-v={fresh};"))
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_right_cuts_what_runs_within_two_seconds() {
    let world = World::start().await;
    let share = ShareId::new(random::uuid());
    let ticket = ViewerTicket { share_id: Some(share), ..world.ticket() };
    let selectors =
        [Selector::Sub(ticket.sub), Selector::Sid(ticket.sid), Selector::Share(share), Selector::Jti(ticket.jti)];
    for selector in selectors {
        let world = World::start().await;
        let _agent = world.tunnel().await;
        let ticket = world.hub.sign(&ViewerTicket { server_id: world.server, ..ticket.clone() });
        let other = world.hub.sign(&world.ticket());
        for mut viewer in [world.h1(NAME).await, world.h2(NAME).await] {
            let endless = |ticket: &str| {
                bare(Request::builder().uri("/endless").header("host", NAME).header("x-phlix-ticket", ticket))
            };
            if viewer.fetch(with(&ticket)).await.status == 401 {
                break;
            }
            let mut running = viewer.send(endless(&ticket)).await.unwrap().into_body();
            running.frame().await.unwrap().unwrap();
            let revoked = Instant::now();
            world.hub.revoke(selector);
            while let Some(Ok(_)) = running.frame().await {
                assert!(revoked.elapsed() < Duration::from_secs(2), "{selector:?} cuts nothing");
            }
            world.origin.seen.dropped.notified().await;
        }
        let mut viewer = world.h1(NAME).await;
        assert_eq!(viewer.fetch(with(&ticket)).await.status, 401);
        assert_eq!(viewer.fetch(with(&other)).await.status, 200, "nobody else is put out");
    }
}

#[tokio::test]
async fn a_right_withdrawn_while_nobody_reads_lets_go_of_the_origin() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.ticket();
    let mut viewer = world.h2(NAME).await;
    let request =
        Request::builder().uri("/endless").header("host", NAME).header("x-phlix-ticket", world.hub.sign(&ticket));
    let held = viewer.send(bare(request)).await.unwrap();
    world.hub.revoke(Selector::Sub(ticket.sub));
    tokio::time::timeout(Duration::from_secs(2), world.origin.seen.dropped.notified()).await.expect("let go");
    drop(held);
}

#[tokio::test]
async fn a_name_that_is_closed_puts_strangers_out() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let mut viewer = world.h1(OPEN).await;
    let endless = Request::builder().uri("/endless").header("host", OPEN);
    let mut running = viewer.send(bare(endless)).await.unwrap().into_body();
    running.frame().await.unwrap().unwrap();
    world.hub.route(OPEN, world.server, Access::Protected);
    let cut = async { while let Some(Ok(_)) = running.frame().await {} };
    tokio::time::timeout(Duration::from_secs(2), cut).await.expect("cut");
    let again = bare(Request::builder().uri("/").header("host", OPEN));
    assert_eq!(world.h1(OPEN).await.fetch(again).await.status, 401);
}

#[tokio::test]
async fn what_is_known_goes_on_while_the_hub_is_away_and_changes_are_caught_up_with() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.ticket();
    let signed = world.hub.sign(&ticket);
    let mut viewer = world.h1(NAME).await;
    assert_eq!(viewer.fetch(with(&signed)).await.status, 200);
    world.hub.set_down(true);
    let fresh = world.hub.sign(&world.ticket());
    assert_eq!(viewer.fetch(with(&fresh)).await.status, 200);
    let mut running = viewer
        .send(bare(Request::builder().uri("/endless").header("host", NAME).header("x-phlix-ticket", &signed)))
        .await
        .unwrap()
        .into_body();
    running.frame().await.unwrap().unwrap();

    // Revoked while the edge could not hear it.
    world.hub.revoke(Selector::Sid(ticket.sid));
    world.hub.set_down(false);
    let cut = async { while let Some(Ok(_)) = running.frame().await {} };
    tokio::time::timeout(Duration::from_secs(10), cut).await.expect("cut");
}

#[tokio::test]
async fn a_name_that_was_never_asked_for_is_known_by_its_tunnel_while_the_hub_is_away() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    world.hub.set_down(true);
    let ticket = world.hub.sign(&world.ticket());
    assert_eq!(world.h1(NAME).await.fetch(with(&ticket)).await.status, 200);
    // For whoever has no ticket, it is not open.
    let anonymous = bare(Request::builder().uri("/").header("host", OPEN));
    assert_eq!(world.h1(OPEN).await.fetch(anonymous).await.status, 401);
    let unknown = bare(Request::builder().uri("/").header("host", "nobody.hub.localhost"));
    assert_eq!(world.h1("nobody.hub.localhost").await.fetch(unknown).await.status, 503);
}

#[tokio::test]
async fn a_ticket_for_so_many_streams_carries_no_more() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.hub.sign(&ViewerTicket { streams: 1, ..world.ticket() });
    let endless = || bare(Request::builder().uri("/endless").header("host", NAME).header("x-phlix-ticket", &ticket));
    let mut viewer = world.h2(NAME).await;
    let running = viewer.send(endless()).await.unwrap();
    let second = viewer.fetch(with(&ticket)).await;
    assert_eq!((second.status, second.code().as_str()), (429, "stream.limit"));
    drop(running);
    until(async || viewer.fetch(with(&ticket)).await.status == 200).await;
}

#[tokio::test]
async fn one_viewer_holds_half_of_a_tunnels_streams_and_no_more() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    // The tunnel's ticket is for 64 streams.
    let (greedy, other) = (world.hub.sign(&world.ticket()), world.hub.sign(&world.ticket()));
    let endless =
        |ticket: &str| bare(Request::builder().uri("/endless").header("host", NAME).header("x-phlix-ticket", ticket));
    let mut viewer = world.h2(NAME).await;
    let mut running = Vec::new();
    for _ in 0..32 {
        running.push(viewer.send(endless(&greedy)).await.unwrap());
    }
    // Over any connection: those that are read by nobody leave no window on theirs.
    let mut another = world.h1(NAME).await;
    let refused = another.fetch(with(&greedy)).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "stream.share"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(another.fetch(with(&other)).await.status, 200);
    running.pop();
    until(async || another.fetch(with(&greedy)).await.status == 200).await;
}

#[tokio::test]
async fn the_proxy_path_answers_in_the_order_that_clients_know() {
    let world = World::start().await;
    let mut viewer = Viewer::plain(world.at.http.unwrap()).await;
    let path = format!("/api/v1/servers/{}/proxy/hls/x", world.server);
    let get = |bearer: &str| {
        let request = Request::builder().uri(&path).header("host", "localhost");
        bare(if bearer.is_empty() { request } else { request.header("authorization", format!("Bearer {bearer}")) })
    };
    let anonymous = viewer.fetch(get("")).await;
    assert_eq!((anonymous.status, anonymous.code().as_str()), (401, "auth.required"));

    let ticket = ViewerTicket { host: None, edge: Some(world.edge_id), scope: Scope::Proxy, ..world.ticket() };
    let reply = |kind| ExchangeReply {
        ticket: world.hub.sign(&ticket),
        expires_at: ticket.exp,
        kind,
        url: Some("https://ab.hub.localhost/".into()),
        online: true,
    };
    world.hub.exchange("owner-of-a-generic-one", Ok(reply(ServerKind::Generic)));
    world.hub.exchange("owner-of-a-legacy-one", Ok(reply(ServerKind::Phlix)));
    world.hub.exchange("a-stranger-to-the-server", Err(http::StatusCode::FORBIDDEN));
    world.hub.exchange("asks-for-another-server", Err(http::StatusCode::NOT_FOUND));
    for (bearer, status) in [
        ("somebody-unknown-here", 401),
        ("asks-for-another-server", 404),
        ("a-stranger-to-the-server", 403),
        ("owner-of-a-generic-one", 409),
        ("owner-of-a-legacy-one", 503),
    ] {
        assert_eq!(viewer.fetch(get(bearer)).await.status, status, "{bearer}");
    }
    let use_name = viewer.fetch(get("owner-of-a-generic-one")).await;
    assert_eq!(use_name.code(), "server.use_name");
    let body: serde_json::Value = serde_json::from_slice(&use_name.body).unwrap();
    assert_eq!(body["url"], "https://ab.hub.localhost/");

    // Found wrong once, it is not asked about again for a while.
    world.hub.exchange("somebody-unknown-here", Ok(reply(ServerKind::Generic)));
    assert_eq!(viewer.fetch(get("somebody-unknown-here")).await.status, 401);
}

#[tokio::test]
async fn an_address_that_guesses_is_answered_here() {
    let world = World::with(|config| config.limits.misses_per_minute = 3).await;
    let mut viewer = Viewer::plain(world.at.http.unwrap()).await;
    let path = format!("/api/v1/servers/{}/proxy/x", world.server);
    let mut statuses = Vec::new();
    for guess in 0..5 {
        let request = Request::builder()
            .uri(&path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {guess:020}"));
        statuses.push(viewer.fetch(bare(request)).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
}
