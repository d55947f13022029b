//! `phlix serve` as an operator sees it: starts with nothing, keeps its secrets to itself, tells how it
//! is, and its tools say what is right and what is wrong.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::process::{clean, phlix};
use phlix_tests::{Engine, on_both_databases, story};

on_both_databases!(a_fresh_hub_is_healthy_ready_and_measured, the_tools_find_everything_in_order);

async fn a_fresh_hub_is_healthy_ready_and_measured(engine: Engine) {
    let hub = Hub::start(Database::fresh(engine), &[]).await;
    let api = hub.api();
    let health = api.get("/health").await.expect(200);
    assert!(health["status"].is_string(), "{health}");
    api.get("/ready").await.expect(200);
    // Metrics have a port of their own, and are not on the hub's.
    let text = get_text(hub.ready().metrics, "/metrics").await;
    assert!(text.contains("# TYPE phlix_"), "{text}");
    assert_eq!(api.get("/metrics").await.status, 404);
    assert_eq!(api.get("/no/such/path").await.status, 404);
    let keys = api.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(keys["keys"][0]["crv"], "Ed25519");
}

async fn the_tools_find_everything_in_order(engine: Engine) {
    let home = tempfile::tempdir().unwrap();
    let database = Database::fresh(engine);
    let run = |args: &[&str]| {
        let mut command = tool(home.path(), args);
        if let Some(url) = database.url() {
            command.env("HUB_DATABASE_URL", url);
        }
        command.output().unwrap()
    };
    // A first start lays the data folder out.
    let hub_like = run(&["migrate"]);
    assert!(hub_like.status.success(), "{}", told(&hub_like));
    let again = run(&["migrate"]);
    assert!(again.status.success(), "a second migrate: {}", told(&again));
    let smoke = run(&["smoke", "jwt"]);
    assert!(smoke.status.success(), "{}", told(&smoke));
    let openapi = run(&["openapi"]);
    assert!(openapi.status.success(), "{}", told(&openapi));
    let document: serde_json::Value = serde_json::from_slice(&openapi.stdout).unwrap();
    assert!(document["paths"]["/api/v1/server-claims/new"]["post"].is_object());
}

#[test]
fn secrets_are_the_owners_alone_and_survive_a_restart() {
    story(async {
        let mut hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
        let pin = hub.ready().spki_sha256.clone();
        let keys = hub.api().get("/.well-known/jwks.json").await.expect(200);
        let mut secrets = 0;
        for path in files(&hub.data_folder()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let text = fs::read(&path).unwrap();
            let secret = String::from_utf8_lossy(&text).contains("PRIVATE KEY")
                || ["key", "secret", "seal"].iter().any(|word| name.contains(word));
            if secret {
                secrets += 1;
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
        assert!(secrets >= 3, "found {secrets} secrets in the data folder: is this test blind?");
        let ended = hub.stop().await;
        assert!(ended.success(), "{ended}");
        hub.start_again().await;
        assert_eq!(hub.ready().spki_sha256, pin);
        assert_eq!(hub.api().get("/.well-known/jwks.json").await.expect(200), keys);
    });
}

#[test]
fn wrong_settings_are_refused_before_a_port_opens() {
    let home = tempfile::tempdir().unwrap();
    for (name, value, part) in [
        ("HUB_PORT", "eighty", "HUB_PORT"),
        ("HUB_DATABASE_URL", "postgres://x/y", "HUB_DATABASE_URL"),
        ("TRUSTED_PROXIES", "everybody", "TRUSTED_PROXIES"),
        ("HUB_PUBLIC_URL", "not a url", "HUB_PUBLIC_URL"),
    ] {
        let out = tool(home.path(), &["serve"]).env(name, value).output().unwrap();
        assert!(!out.status.success(), "{name}={value} was taken");
        assert!(told(&out).contains(part), "{name}={value}: {}", told(&out));
    }
    let both = tool(home.path(), &["serve"])
        .env("HUB_DATABASE_URL", "sqlite://x.db")
        .env("HUB_DB_HOST", "127.0.0.1")
        .output()
        .unwrap();
    assert!(!both.status.success(), "two databases were taken");
}

#[test]
fn help_needs_no_database() {
    let home = tempfile::tempdir().unwrap();
    let out = tool(home.path(), &["--help"]).env("HUB_DATABASE_URL", "mysql://nobody@127.0.0.1:1/x").output().unwrap();
    assert!(out.status.success(), "{}", told(&out));
    for command in ["serve", "agent", "migrate", "smoke", "user", "key", "openapi", "doctor"] {
        assert!(told(&out).contains(command), "{command} is not in --help");
    }
}

/// The program with a data folder of its own and every port the kernel's choice.
fn tool(home: &Path, args: &[&str]) -> Command {
    let mut command = clean(phlix(), home);
    command.args(args).env("HUB_DATA_DIR", home.join("data")).env("HUB_HOST", "127.0.0.1");
    for port in [
        "HUB_PORT",
        "HUB_CONTROL_PORT",
        "HUB_TLS_PORT",
        "HUB_METRICS_PORT",
        "HUB_RELAY_SERVER_PORT",
        "HUB_RELAY_CLIENT_PORT",
    ] {
        command.env(port, "0");
    }
    command
}

fn told(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

async fn get_text(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}
