//! The WebSocket codec against Autobahn's cases, which a program that is not ours runs: framing,
//! fragments, control frames, reserved bits, UTF-8, close codes, limits; as a server and as a client.
//!
//! Without groups 12 and 13: they are about compression, which is never offered nor accepted.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use phlix_tests::{python, story, ws_echo};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Autobahn's groups, and how many cases they are: 16 + 11 + 7 + 10 + 20 + 145 + 37 + 54 + 1.
const CASES: [&str; 18] = [
    "--case", "1.*", "--case", "2.*", "--case", "3.*", "--case", "4.*", "--case", "5.*", "--case", "6.*", "--case",
    "7.*", "--case", "9.*", "--case", "10.*",
];
const COUNT: u64 = 301;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn our_codec_is_a_conforming_server() {
    story(async {
        let server = ws_echo::serve().await;
        let mut command = Command::from(python::script("autobahn.py"));
        command.args(["server", &format!("ws://{server}")]).args(CASES).stdin(Stdio::null()).kill_on_drop(true);
        let out = tokio::time::timeout(LIMIT, command.output()).await.expect("the cases end").unwrap();
        let told = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
        check("server", told.lines().next_back().unwrap_or_default());
    });
}

#[test]
fn our_codec_is_a_conforming_client() {
    story(async {
        let mut command = Command::from(python::script("autobahn.py"));
        command.arg("client").args(CASES).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("the cases are served");
        let port = serde_json::from_str::<Value>(&first).unwrap()["port"].as_u64().unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        let run = async {
            let told = ws_echo::ask(server, "/getCaseCount").await.unwrap().expect("the number of cases");
            assert_eq!(told, COUNT.to_string());
            for case in 1..=COUNT {
                // How a case ended is judged by the other side: some break off in the midst.
                let _ = ws_echo::visit(server, &format!("/runCase?case={case}&agent=phlix")).await;
            }
            let _ = ws_echo::ask(server, "/updateReports?agent=phlix").await;
            lines.next_line().await.unwrap().expect("the verdicts")
        };
        let told = tokio::time::timeout(LIMIT, run).await.expect("the cases end");
        check("client", &told);
    });
}

fn check(end: &str, verdicts: &str) {
    println!("{end}: {verdicts}");
    let told: Value = serde_json::from_str(verdicts).unwrap_or_else(|e| panic!("{e}: {verdicts}"));
    assert_eq!(told["cases"], COUNT, "not all cases ran");
    assert_eq!(told["failed"], Value::Array(Vec::new()), "{end}: cases failed");
}
