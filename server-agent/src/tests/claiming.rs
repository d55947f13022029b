//! Claiming, keeping fresh, losing the claim.

use std::sync::Arc;

use http::StatusCode;
use tokio::net::TcpListener;

use super::*;
use crate::{HubError, SpkiPin, Stage, status};

/// An origin that nobody needs here.
const NO_ORIGIN: &str = "http://127.0.0.1:9";

async fn hub_with_edge() -> (Arc<FakeHub>, FakeEdge) {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(Manner::Honest);
    hub.bend().edges = vec![edge.entry()];
    (hub, edge)
}

fn pending(event: &Event) -> Option<(String, String)> {
    match event {
        Event::ClaimPending { code, url, .. } => Some((code.clone(), url.clone())),
        _ => None,
    }
}

#[tokio::test]
async fn a_code_is_shown_until_somebody_has_entered_it() {
    let (hub, _edge) = hub_with_edge().await;
    hub.bend().claimed = false;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    let (code, url) = agent.event(pending).await;
    assert_eq!(code, "ABCD-EFGH");
    assert_eq!(url, "https://public.example/claim-server?code=ABCD-EFGH");
    soon(hub.wait_for("", 4)).await;
    let shown = soon(async {
        loop {
            match status(folder.path()).unwrap() {
                Some(status) if matches!(status.stage, Stage::Claiming { .. }) => return status,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(shown.running);
    hub.bend().claimed = true;
    let owner = agent
        .event(|event| match event {
            Event::Claimed { server, owner_name } => Some((*server, owner_name.clone())),
            _ => None,
        })
        .await;
    assert_eq!(owner, (hub.server, Some("ada".into())));
    agent.connected().await;
    assert_eq!(hub.count("/new"), 1);
    agent.stopped().await.unwrap();
    let last = status(folder.path()).unwrap().unwrap();
    assert_eq!((last.running, &last.stage), (false, &Stage::Stopped));
    assert_eq!(last.owner_name.as_deref(), Some("ada"));
    assert_eq!(last.names.len(), 2);
}

#[tokio::test]
async fn a_code_that_expired_is_followed_by_another() {
    let (hub, _edge) = hub_with_edge().await;
    hub.bend().claimed = false;
    hub.bend().claim_expires_in = 0;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    for _ in 0..3 {
        agent.event(pending).await;
    }
    hub.bend().claimed = true;
    agent.connected().await;
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_hub_that_is_away_is_waited_for_while_claiming() {
    let (hub, _edge) = hub_with_edge().await;
    hub.bend().away = true;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    agent.event(|event| matches!(event, Event::HubAway { .. }).then_some(())).await;
    hub.bend().away = false;
    agent.event(|event| matches!(event, Event::HubBack).then_some(())).await;
    agent.connected().await;
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_claimed_server_stays_claimed_after_a_restart() {
    let (hub, _edge) = hub_with_edge().await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    let mut agent = Agent::start(config.clone());
    agent.connected().await;
    agent.stopped().await.unwrap();
    let mut agent = Agent::start(config.clone());
    agent.connected().await;
    assert_eq!(hub.count("/new"), 1);
    agent.stopped().await.unwrap();
    let mut agent = Agent::start(Config { claim_again: true, ..config });
    agent.connected().await;
    assert_eq!(hub.count("/new"), 2);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_restarted_agent_comes_back_to_its_edge_while_the_hub_is_away() {
    let (hub, edge) = hub_with_edge().await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    let mut agent = Agent::start(config.clone());
    agent.connected().await;
    soon(edge.tunnel()).await;
    agent.stopped().await.unwrap();
    hub.bend().away = true;
    let mut agent = Agent::start(config);
    agent.connected().await;
    soon(edge.tunnel()).await;
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_at_home_is_set_right_by_the_hub() {
    let (hub, edge) = hub_with_edge().await;
    // Three hours ahead of us: each of our signatures looks stale at first.
    hub.bend().clock = 3 * 3600;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    agent.connected().await;
    let mut tunnel = soon(edge.tunnel()).await;
    // The edge of this test tells our own time; the hub's counts.
    let statement = soon(tunnel.hear_until(|message| match message {
        phlix_protocol::native::control::Message::Presence(presence) => Some(presence.statement),
        _ => None,
    }))
    .await;
    let claims: phlix_protocol::token::Presence = phlix_protocol::token::peek(&statement).unwrap();
    assert!((claims.iat - hub::now() - 3 * 3600).abs() < 60);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn heartbeats_come_and_an_enrollment_is_renewed_at_half_its_life() {
    let (hub, _edge) = hub_with_edge().await;
    // Half of it is over as soon as it is issued.
    hub.bend().enrollment_life = 1;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    agent.connected().await;
    soon(hub.wait_for("/heartbeat", 3)).await;
    soon(hub.wait_for("/renew", 1)).await;
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_server_that_the_hub_has_forgotten_says_what_to_do_instead_of_asking_for_ever() {
    for (code, name) in [
        (StatusCode::NOT_FOUND, "server.not_found"),
        (StatusCode::UNAUTHORIZED, "auth.enrollment_expired"),
        (StatusCode::UNAUTHORIZED, "auth.enrollment_revoked"),
    ] {
        let (hub, _edge) = hub_with_edge().await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
        agent.connected().await;
        hub.bend().refuse = Some((code, name));
        let error = agent.ended().await.unwrap_err();
        assert!(matches!(error, AgentError::NotEnrolled { .. }), "{error}");
        assert!(error.to_string().contains("--claim-again"), "{error}");
    }
}

#[tokio::test]
async fn other_refusals_are_waited_out_with_the_tunnel_open() {
    let (hub, edge) = hub_with_edge().await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    agent.connected().await;
    let tunnel = soon(edge.tunnel()).await;
    for (code, name) in
        [(StatusCode::FORBIDDEN, "x"), (StatusCode::UNAUTHORIZED, "auth.invalid_token"), (StatusCode::BAD_GATEWAY, "x")]
    {
        hub.bend().refuse = Some((code, name));
        agent.event(|event| matches!(event, Event::HubAway { .. }).then_some(())).await;
        hub.bend().refuse = None;
        agent.event(|event| matches!(event, Event::HubBack).then_some(())).await;
    }
    assert!(tunnel.link.close_reason().is_none());
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn a_folder_of_another_hub_is_not_mixed_up() {
    let (hub, _edge) = hub_with_edge().await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    agent.connected().await;
    agent.stopped().await.unwrap();
    let other = FakeHub::start().await;
    let error = Agent::start(config(&other, NO_ORIGIN.parse().unwrap(), folder.path())).ended().await.unwrap_err();
    assert!(matches!(error, AgentError::OtherHub { .. }), "{error}");
}

#[tokio::test]
async fn two_agents_do_not_share_a_folder() {
    let (hub, _edge) = hub_with_edge().await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    let mut agent = Agent::start(config.clone());
    agent.connected().await;
    let error = Agent::start(config).ended().await.unwrap_err();
    assert!(error.to_string().contains("another agent runs"), "{error}");
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        Config::new("http://192.0.2.1:8800".parse().unwrap(), NO_ORIGIN.parse().unwrap(), folder.path().join("state"));
    let error = Agent::start(config).ended().await.unwrap_err();
    assert!(matches!(error, AgentError::HubUrl(_)), "{error}");
    assert!(!folder.path().join("state").exists());
}

/// The stand-in hub behind TLS with a certificate of a development CA.
struct Tls {
    url: String,
    certs: phlix_certs::dev::DevCerts,
    _folder: tempfile::TempDir,
}

impl Tls {
    async fn before(hub: &FakeHub) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certs = phlix_certs::dev::DevCerts::load_or_issue(
            folder.path(),
            "hub.localhost",
            &[],
            std::time::SystemTime::now(),
        )
        .unwrap();
        let config = rustls::ServerConfig::builder_with_provider(crate::trust::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certs.key())));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let plain = hub.url.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, plain) = (acceptor.clone(), plain.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(socket).await else { return };
                    let tcp = tokio::net::TcpStream::connect(plain).await.unwrap();
                    let (mut from_agent, mut to_agent) = tokio::io::split(tls);
                    let (mut from_hub, mut to_hub) = tcp.into_split();
                    let up = carry(&mut from_agent, &mut to_hub);
                    let down = carry(&mut from_hub, &mut to_agent);
                    tokio::join!(up, down);
                });
            }
        });
        Self { url, certs, _folder: folder }
    }
}

async fn carry(from: &mut (impl tokio::io::AsyncRead + Unpin), to: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        let _ = to.flush().await;
    }
}

#[tokio::test]
async fn a_hub_without_a_public_certificate_is_trusted_by_its_key_once_confirmed() {
    let (hub, _edge) = hub_with_edge().await;
    let tls = Tls::before(&hub).await;
    *hub.origin.lock().unwrap() = tls.url.clone();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    config.hub = tls.url.parse().unwrap();

    let error = Agent::start(config.clone()).ended().await.unwrap_err();
    let AgentError::HubNotTrusted { seen } = error else { panic!("{error}") };
    assert_eq!(seen, tls.certs.pin());
    assert_eq!(hub.count(""), 0);

    let confirmed = Config { hub_key: Some(seen), ..config.clone() };
    let mut agent = Agent::start(confirmed);
    agent.connected().await;
    agent.stopped().await.unwrap();

    // Kept: nobody is asked again.
    let mut agent = Agent::start(config.clone());
    agent.connected().await;
    agent.stopped().await.unwrap();

    // Another key at the same place is no hub of ours.
    let wrong = Config { hub_key: Some(SpkiPin::of_spki(b"other")), claim_again: true, ..config };
    let error = Agent::start(wrong).ended().await.unwrap_err();
    assert!(matches!(error, AgentError::ClaimRefused(HubError::OtherKey { seen: other }) if other == seen), "{error}");
}

#[tokio::test]
async fn a_hub_is_trusted_by_a_given_ca() {
    let (hub, _edge) = hub_with_edge().await;
    let tls = Tls::before(&hub).await;
    *hub.origin.lock().unwrap() = tls.url.clone();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    config.hub = tls.url.parse().unwrap();
    config.ca_file = Some(tls.certs.ca_file().to_owned());
    let mut agent = Agent::start(config);
    agent.connected().await;
    agent.stopped().await.unwrap();
}
