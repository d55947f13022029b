//! aioquic: a viewer over HTTP/3 that is not ours.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::hub::Hub;
use crate::python;
use crate::viewer::Door;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(120);

/// One request to a name, on a connection of its own.
#[derive(Debug)]
pub struct Aioquic {
    command: std::process::Command,
}

impl Aioquic {
    /// At the hub's own door.
    pub fn new(hub: &Hub, host: &str) -> Self {
        Self::at(&Door::of(hub, host), hub)
    }

    /// At a door whose certificate the hub's CA vouches for.
    pub fn at(door: &Door, hub: &Hub) -> Self {
        let mut command = python::script("h3_client.py");
        command
            .args(["--connect", &door.address.to_string(), "--host", &door.host])
            .args(["--limit", &LIMIT.as_secs().to_string(), "--ca"])
            .arg(&hub.ready().ca_file);
        Self { command }
    }

    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.args(&["--header", &format!("{name}: {value}")])
    }

    /// Arguments of the script's own.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Does it; what the script tells.
    pub async fn run(mut self, action: &str, path: &str) -> Value {
        self.command.args([action, path]).stdin(Stdio::null());
        let run = tokio::process::Command::from(self.command).kill_on_drop(true).output();
        let out = run.await.unwrap();
        let told = String::from_utf8_lossy(&out.stdout);
        let last = told.lines().next_back().unwrap_or_default();
        let parsed = serde_json::from_str(last);
        parsed.unwrap_or_else(|_| panic!("aioquic: {told}\n{}", String::from_utf8_lossy(&out.stderr)))
    }

    /// Asks for a path and goes on until it is told to leave.
    pub async fn stay(mut self, path: &str) -> Staying {
        self.command.args(["cancel", path]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tokio::process::Command::from(self.command).kill_on_drop(true).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut staying = Staying { input, lines, _child: child };
        let line = staying.line().await;
        assert!(line.contains("reading"), "{path}: {line}");
        staying
    }
}

/// A viewer in the middle of an answer.
#[derive(Debug)]
pub struct Staying {
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Staying {
    /// Cancels; when that was. Its connection stays.
    pub async fn leave(&mut self) -> Instant {
        self.input.write_all(b"\n").await.unwrap();
        let line = self.line().await;
        let now = (Instant::now(), SystemTime::now());
        let told: Value = serde_json::from_str(&line).unwrap();
        let left = UNIX_EPOCH + Duration::from_secs_f64(told["left"].as_f64().expect("when it left"));
        now.0 - now.1.duration_since(left).unwrap_or_default()
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await.expect("aioquic says nothing");
        line.unwrap().expect("aioquic ended")
    }
}
