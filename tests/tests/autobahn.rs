//! The WebSocket codec against Autobahn's cases, which a program that is not ours runs: framing,
//! fragments, control frames, reserved bits, UTF-8, close codes, limits; as a server and as a client.
//!
//! Without groups 12 and 13: they are about compression, which is never offered nor accepted.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use phlix_tests::{full_size, python, story, ws_echo};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Cases of the groups, as Autobahn counts them: 16 + 11 + 7 + 10 + 20 + 145 + 37 + 54 + 1.
const ALL: u64 = 301;
/// Those without group 9's largest messages and smallest pieces, which take minutes in a debug build.
const SHORT: u64 = 301 - 54 + 15;

const LIMIT: Duration = Duration::from_secs(600);

/// The cases that run.
fn cases() -> (Vec<&'static str>, u64) {
    let groups = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
    let (ninth, count): (&[&str], u64) = if full_size() {
        (&["9.*"], ALL)
    } else {
        // 64 KiB and 256 KiB whole, in fragments and in pieces of TCP; small messages by the thousand.
        let some: &[&str] = &[
            "9.1.1", "9.1.2", "9.2.1", "9.2.2", "9.3.5", "9.4.5", "9.5.6", "9.6.6", "9.7.1", "9.7.2", "9.7.3", "9.8.1",
            "9.8.2", "9.8.3", "9.8.4",
        ];
        (some, SHORT)
    };
    let args = groups.iter().chain(ninth).flat_map(|case| ["--case", case]).collect();
    (args, count)
}

#[test]
fn our_codec_is_a_conforming_server() {
    story(async {
        let server = ws_echo::serve().await;
        let (cases, count) = cases();
        let mut command = Command::from(python::script("autobahn.py"));
        command.args(["server", &format!("ws://{server}")]).args(cases).stdin(Stdio::null()).kill_on_drop(true);
        let out = tokio::time::timeout(LIMIT, command.output()).await.expect("the cases end").unwrap();
        let told = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
        check("server", told.lines().next_back().unwrap_or_default(), count);
    });
}

#[test]
fn our_codec_is_a_conforming_client() {
    story(async {
        let (cases, count) = cases();
        let mut command = Command::from(python::script("autobahn.py"));
        command.arg("client").args(cases).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("the cases are served");
        let port = serde_json::from_str::<Value>(&first).unwrap()["port"].as_u64().unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        let run = async {
            let told = ws_echo::ask(server, "/getCaseCount").await.unwrap().expect("the number of cases");
            assert_eq!(told, count.to_string());
            for case in 1..=count {
                // How a case ended is judged by the other side: some break off in the midst.
                let _ = ws_echo::visit(server, &format!("/runCase?case={case}&agent=phlix")).await;
            }
            let _ = ws_echo::ask(server, "/updateReports?agent=phlix").await;
            lines.next_line().await.unwrap().expect("the verdicts")
        };
        let told = tokio::time::timeout(LIMIT, run).await.expect("the cases end");
        check("client", &told, count);
    });
}

fn check(end: &str, verdicts: &str, count: u64) {
    println!("{end}: {verdicts}");
    let told: Value = serde_json::from_str(verdicts).unwrap_or_else(|e| panic!("{e}: {verdicts}"));
    assert_eq!(told["cases"], count, "not all cases ran");
    assert_eq!(told["failed"], Value::Array(Vec::new()), "{end}: cases failed");
}
