//! The two databases, fresh per test; and a MariaDB of one's own that can be killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Process, clean};
use crate::until;

/// Which database a story runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    MariaDb,
}

/// A database of one test, gone when dropped.
#[derive(Debug)]
pub enum Database {
    /// The hub's own file in its data folder, as without any setting.
    Sqlite,
    MariaDb {
        socket: PathBuf,
        name: String,
    },
}

impl Database {
    pub fn fresh(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self::Sqlite,
            Engine::MariaDb => Self::on(shared_socket()),
        }
    }

    fn on(socket: &Path) -> Self {
        let name = format!("story_{}", uuid::Uuid::new_v4().simple());
        sql(socket, &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        Self::MariaDb { socket: socket.to_owned(), name }
    }

    /// What goes into `HUB_DATABASE_URL`, if anything.
    pub fn url(&self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::MariaDb { socket, name } => {
                Some(format!("mysql://root@localhost/{name}?socket={}", socket.display()))
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::MariaDb { socket, name } = self {
            // The server may be gone: then so is the database.
            let _ =
                client(socket).arg(format!("--execute=DROP DATABASE IF EXISTS {name}")).stderr(Stdio::null()).status();
        }
    }
}

/// Runs SQL as the independent reader that is not our code; gives the rows, tab-separated.
pub fn sql(socket: &Path, statement: &str) -> Vec<String> {
    let out = client(socket).arg(format!("--execute={statement}")).output().unwrap();
    assert!(out.status.success(), "{statement}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn client(socket: &Path) -> Command {
    let mut command = Command::new("mariadb");
    command
        .args(["--no-defaults", "--batch", "--skip-column-names", "--user=root"])
        .arg(format!("--socket={}", socket.display()));
    command
}

/// The server that all tests of this process share: the one in `PHLIX_TEST_MARIADB`, or one that is
/// started now and ends when its standard input closes, however this process ends.
fn shared_socket() -> &'static Path {
    static SHARED: OnceLock<(PathBuf, Option<(Child, ChildStdin)>)> = OnceLock::new();
    let (socket, _) = SHARED.get_or_init(|| {
        if let Ok(url) = std::env::var("PHLIX_TEST_MARIADB") {
            return (socket_of(&url), None);
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/dev/with-mariadb.sh");
        let mut child = Command::new(script)
            .args(["sh", "-c", "echo \"$PHLIX_TEST_MARIADB\"; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        (socket_of(url.trim()), Some((child, stdin)))
    });
    socket
}

fn socket_of(url: &str) -> PathBuf {
    url.split_once("socket=").unwrap_or_else(|| panic!("PHLIX_TEST_MARIADB without a socket: {url}")).1.into()
}

/// A MariaDB of one story alone, durable as in production, that can be killed and started again.
#[derive(Debug)]
pub struct Server {
    folder: tempfile::TempDir,
    process: Option<Process>,
}

impl Server {
    pub async fn start() -> Self {
        // Under /tmp, since the path of a socket has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("phlix-db").tempdir_in("/tmp").unwrap();
        let installed = clean("mariadb-install-db", folder.path())
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(format!("--user={}", user()))
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .output()
            .unwrap();
        assert!(installed.status.success(), "{installed:?}");
        let mut server = Self { folder, process: None };
        server.start_again().await;
        server
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    pub fn database(&self) -> Database {
        Database::on(&self.socket())
    }

    pub fn kill(&mut self) {
        self.process = None;
        // What a killed server leaves, and what would look like a live one.
        let _ = fs::remove_file(self.socket());
    }

    pub async fn start_again(&mut self) {
        let home = self.folder.path();
        let mut command = clean("mariadbd", home);
        command
            .args(["--no-defaults", "--skip-networking", "--skip-log-bin", "--performance-schema=OFF"])
            .arg(format!("--user={}", user()))
            .arg(format!("--datadir={}", home.join("data").display()))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", home.join("pid").display()));
        let mut process = Process::spawn("mariadbd", home, &mut command);
        let socket = self.socket();
        until("MariaDB answers", Duration::from_secs(60), || {
            process.must_run();
            let answers = client(&socket)
                .arg("--execute=SELECT 1")
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .unwrap()
                .success();
            std::future::ready(answers.then_some(()))
        })
        .await;
        self.process = Some(process);
    }
}

fn user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
