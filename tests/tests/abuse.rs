//! Viewers who mean harm: floods of what carries nothing, peers who are slow on purpose, datagrams that are no QUIC. Each
//! is cut off after its budget, and a bystander whose requests go through a tunnel hardly notices.
//!
//! One test after the other: what is measured is the machine, too.

#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{Door, Protocol};
use phlix_tests::{Engine, World, full_size, latency, python, story};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TICKET: &str = "x-phlix-ticket";

/// What all floods together may leave behind in the hub.
const GROWTH_KIB: u64 = 24 * 1024;

/// "`/health` under 100 ms".
const HEALTH: Duration = Duration::from_millis(100);

#[test]
fn viewers_who_mean_harm_are_cut_off_and_bystanders_served() {
    story(async {
        let home = Home::start();
        let mut world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        floods_over_http2(&mut world, &ticket).await;
        floods_over_http3(&world, &ticket).await;
        strangers_over_quic(&world, &ticket).await;
        slow_on_purpose(&mut world, &ticket).await;
    });
}

/// Runs a script of forgeries against the server's name.
fn forge(world: &World, script: &str, ticket: &str, seconds: u32, attack: &[&str]) -> tokio::process::Command {
    let door = Door::of(&world.hub, &world.server.host);
    let mut command = python::script(script);
    command.args(["--connect", &door.address.to_string(), "--host", &door.host, "--ticket", ticket]);
    command.args(["--seconds", &seconds.to_string(), "--ca"]).arg(&world.hub.ready().ca_file).args(attack);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    command
}

async fn told(mut command: tokio::process::Command) -> Value {
    let out = command.output().await.unwrap();
    let told = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}\n{}", String::from_utf8_lossy(&out.stderr)))
}

async fn floods_over_http2(world: &mut World, ticket: &str) {
    let seconds = if full_size() { 30 } else { 5 };
    let mut bystander = world.viewer(Protocol::H1).await;
    latency::rounds(&mut bystander, ticket, 50, Duration::from_millis(500)).await;
    let alone = latency::rounds(&mut bystander, ticket, 50, Duration::from_secs(2)).await;
    let before = world.hub.process().resident_kib();
    let mut beside = Vec::new();
    for attack in [
        "rapid-reset",
        "continuation",
        "empty-continuation",
        "settings",
        "ping",
        "priority",
        "window",
        "empty-data",
        "small-data",
        "unknown",
        "made-reset-by-window",
        "made-reset-by-data",
        "made-reset-by-length",
        "hpack-bomb",
    ] {
        let attacking = tokio::spawn(told(forge(world, "forge_h2.py", ticket, seconds, &[attack])));
        while !attacking.is_finished() {
            beside.push(latency::p99(&mut bystander, ticket, 50).await);
        }
        let outcome = attacking.await.unwrap();
        println!("{attack}: {outcome}");
        assert_eq!(outcome["closed"], true, "{attack} goes on: {outcome}");
        // ENHANCE_YOUR_CALM, or what h2 calls it; null where a reset overtook it.
        assert!(matches!(outcome["goaway"].as_u64(), None | Some(1 | 5 | 9 | 11)), "{attack}: {outcome}");
    }
    let calm = busy(world, Duration::from_secs(1)).await;
    let after = world.hub.process().resident_kib();
    beside.sort();
    let beside = beside[beside.len() / 2];
    println!("p99 alone {alone:?}, beside floods {beside:?}; hub {before} -> {after} KiB; busy after: {calm:.2}");
    assert!(beside <= (alone * 2).max(Duration::from_millis(10)), "p99 rose from {alone:?} to {beside:?}");
    assert!(after.saturating_sub(before) <= GROWTH_KIB, "the hub grew from {before} to {after} KiB");
    assert!(calm < 0.3, "the hub is busy at {calm:.2} of a core after the floods");

    // A head that never comes whole has its ten seconds.
    let outcome = told(forge(world, "forge_h2.py", ticket, 20, &["dribbled-head"])).await;
    assert_eq!(outcome["closed"], true, "{outcome}");
    let seconds = outcome["seconds"].as_f64().unwrap();
    assert!((9.0..15.0).contains(&seconds), "{outcome}");
}

async fn floods_over_http3(world: &World, ticket: &str) {
    for attack in ["reset", "ping", "path"] {
        let outcome = told(forge(world, "forge_h3.py", ticket, 10, &[attack])).await;
        println!("{attack} over HTTP/3: {outcome}");
        assert_eq!(outcome["closed"], true, "{attack} goes on: {outcome}");
        // H3_EXCESSIVE_LOAD.
        assert_eq!(outcome["code"], 0x107, "{attack}: {outcome}");
    }
}

async fn strangers_over_quic(world: &World, ticket: &str) {
    let outcome = told(forge(world, "forge_h3.py", ticket, 3, &["alpn"])).await;
    assert_eq!(outcome["count"], 0, "a foreign protocol was taken: {outcome}");
    for attack in [&["garbage"][..], &["half-open", "200"]] {
        let attacking = told(forge(world, "forge_h3.py", ticket, 2, attack)).await;
        println!("{attack:?}: {attacking}");
        // Right after it, while handshakes are still open.
        let begun = Instant::now();
        let mut viewer = world.viewer(Protocol::H3).await;
        assert_eq!(viewer.get("/echo", &[(TICKET, ticket)]).await.status(), 200, "{attack:?}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "{attack:?}: {took:?}");
    }
}

async fn slow_on_purpose(world: &mut World, ticket: &str) {
    let seconds = if full_size() { "60" } else { "5" };
    // As many as one address may have, less the bystander's.
    let url = format!("https://127.0.0.1:{}/", world.hub.ready().tls.port());
    for (what, args) in [
        ("slow heads", &["-H", "-i", "1"][..]),
        ("slow bodies", &["-B", "-i", "1", "-s", "8192"]),
        ("slow readers", &["-X", "-w", "256", "-y", "512", "-n", "1", "-z", "16", "-k", "3"]),
    ] {
        let before = world.hub.process().resident_kib();
        let mut command = tokio::process::Command::new("slowhttptest");
        command.args(args).args(["-c", "200", "-r", "200", "-l", seconds, "-p", "3", "-u", &url]);
        let attacking = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).status();
        let attacking = tokio::spawn(attacking);
        let mut bystander = world.viewer(Protocol::H1).await;
        let (mut slowest, mut served, mut most) = (Duration::ZERO, 0_u32, before);
        while !attacking.is_finished() {
            slowest = slowest.max(health(world).await);
            latency::requests(&mut bystander, ticket, 5).await;
            served += 5;
            most = most.max(world.hub.process().resident_kib());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ended = attacking.await.unwrap().unwrap();
        println!("{what}: {ended}, /health at most {slowest:?}, {served} served, hub {before} -> {most} KiB");
        assert!(served > 0, "{what}: it never began");
        assert!(slowest < HEALTH, "{what}: /health took {slowest:?}");
        // 200 of them: 256 KiB each at most.
        assert!(most.saturating_sub(before) < 200 * 256, "{what}: the hub grew from {before} to {most} KiB");
    }
}

/// How long `/health` of the metrics port takes.
async fn health(world: &World) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(world.hub.ready().metrics).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    begun.elapsed()
}

/// The share of a core that the hub takes, looked at for half a second, `after` some time.
async fn busy(world: &mut World, after: Duration) -> f64 {
    tokio::time::sleep(after).await;
    let id = world.hub.process().id();
    // Fields 14 and 15 of proc(5)'s stat: user and system time, 100 per second.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_millis(500)).await;
    (ticks() - before) as f64 / 50.0
}
