//! `phlix agent` as a child process.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Process, clean, phlix};
use crate::until;

const LIMIT: Duration = Duration::from_secs(60);

/// An agent with its state folder.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    hub_url: String,
    origin: String,
    extra: Vec<String>,
    env: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Agent {
    /// Starts a new agent, which then waits to be claimed.
    pub fn start(hub_url: &str, origin: &str) -> Self {
        Self::start_with(hub_url, origin, &[])
    }

    /// As [`Agent::start`], with more arguments.
    pub fn start_with(hub_url: &str, origin: &str, extra: &[&str]) -> Self {
        Self::start_in(hub_url, origin, extra, &[])
    }

    /// As [`Agent::start_with`], with variables of the environment.
    pub fn start_in(hub_url: &str, origin: &str, extra: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("phlix-agent").tempdir().unwrap();
        let mut agent = Self {
            process: None,
            hub_url: hub_url.to_owned(),
            origin: origin.to_owned(),
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            folder,
        };
        agent.start_again();
        agent
    }

    /// Starts it where it is not running, with the state that it has.
    pub fn start_again(&mut self) {
        let _ = fs::remove_file(self.ready_file());
        let mut command = clean(phlix(), self.folder.path());
        command
            .arg("agent")
            .args(["--hub", &self.hub_url, "--to", &self.origin])
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .arg("--ready-file")
            .arg(self.ready_file())
            .args(&self.extra)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn("agent", self.folder.path(), &mut command));
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// The claim code that it asks people to enter.
    pub async fn claim_code(&mut self) -> String {
        self.wait("the agent has a claim code", |ready| ready["claim_code"].as_str().map(str::to_owned)).await
    }

    /// The link in its QR code.
    pub async fn claim_url(&mut self) -> String {
        self.wait("the agent has a claim URL", |ready| ready["claim_url"].as_str().map(str::to_owned)).await
    }

    /// Waits until its tunnel stands.
    pub async fn connected(&mut self) {
        self.wait("the agent is connected", |ready| (ready["connected"] == true).then_some(())).await;
    }

    async fn wait<T>(&mut self, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let file = self.ready_file();
        let process = self.process.as_mut().unwrap();
        until(what, LIMIT, || {
            process.must_run();
            let ready = fs::read_to_string(&file).ok().and_then(|json| serde_json::from_str(&json).ok());
            std::future::ready(ready.as_ref().and_then(&find))
        })
        .await
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }
}
