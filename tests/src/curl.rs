//! curl: a client that is not ours, over HTTP/1.1 and HTTP/2, trusting the development CA.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::hub::Hub;
use crate::viewer::Protocol;
use crate::world::Server;

/// How long one transfer may take.
const LIMIT: Duration = Duration::from_secs(120);

/// One call of curl to a server's name.
#[derive(Debug)]
pub struct Curl {
    command: Command,
    url: String,
    folder: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// curl's own verdict: 0 where the transfer was complete.
    pub exit: i32,
    pub status: u16,
    /// As curl names it: `1.1`, `2`.
    pub version: String,
    headers: String,
    body: PathBuf,
    _folder: tempfile::TempDir,
}

impl Curl {
    pub fn new(hub: &Hub, server: &Server, protocol: Protocol, path: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--no-progress-meter", "--disable"])
            .args(["--max-time", &LIMIT.as_secs().to_string()])
            .arg("--cacert")
            .arg(&hub.ready().ca_file)
            .arg("--resolve")
            .arg(format!("{}:{}:127.0.0.1", server.host, hub.ready().tls.port()))
            .arg("--dump-header")
            .arg(folder.path().join("headers"))
            .arg("--output")
            .arg(folder.path().join("body"))
            .args(["--write-out", "%{http_code} %{http_version}"])
            .arg(match protocol {
                Protocol::H1 => "--http1.1",
                Protocol::H2 => "--http2",
                Protocol::H3 => panic!("Debian's curl speaks no HTTP/3"),
            })
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .env_remove("ALL_PROXY");
        Self { command, url: format!("{}{path}", server.url), folder }
    }

    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.arg("--header").arg(&format!("{name}: {value}"))
    }

    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    pub async fn run(mut self) -> Answer {
        self.command.arg(&self.url);
        let mut command = tokio::process::Command::from(self.command);
        let out = command.kill_on_drop(true).output().await.unwrap();
        let told = String::from_utf8(out.stdout).unwrap();
        let (status, version) =
            told.split_once(' ').unwrap_or_else(|| panic!("curl: {told} {}", String::from_utf8_lossy(&out.stderr)));
        Answer {
            exit: out.status.code().unwrap(),
            status: status.parse().unwrap(),
            version: version.to_owned(),
            headers: fs::read_to_string(self.folder.path().join("headers")).unwrap_or_default(),
            body: self.folder.path().join("body"),
            _folder: self.folder,
        }
    }
}

impl Answer {
    /// A header of the last answer (after a `100 Continue` or a redirect).
    pub fn header(&self, name: &str) -> Option<&str> {
        let last = self.headers.trim_end().rsplit("\r\n\r\n").next()?;
        last.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The file that holds the body.
    pub fn file(&self) -> &Path {
        &self.body
    }

    pub fn body(&self) -> Vec<u8> {
        // curl makes no file where no byte came.
        fs::read(&self.body).unwrap_or_default()
    }

    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.body()).into()
    }
}
