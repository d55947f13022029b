//! A program as a child process: its output in a file, killed when dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::until;

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it prints goes to `folder/name.log`, added to what is there.
    pub fn spawn(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start ({command:?}): {e}"));
        Self { name: name.to_owned(), child, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// `None` as long as it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Panics, with what it printed, where it has ended.
    pub fn must_run(&mut self) {
        if let Some(status) = self.exited() {
            panic!("{} ended ({status}):\n{}", self.name, self.output());
        }
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub async fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        let what = format!("{} ends after SIGTERM", self.name);
        until(&what, limit, || std::future::ready(self.child.try_wait().unwrap())).await
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.id())).status().unwrap();
        assert!(sent.success(), "kill -{name} {}", self.name);
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- last of {}:\n{tail}\n---", self.name);
        }
    }
}

/// The built `phlix`, beside which the test was built; or the one that was built for release, see [`is_release`].
pub fn phlix() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/story-0123 -> target/debug/phlix
    let beside = test.parent().unwrap().parent().unwrap();
    let program = if is_release() { beside.with_file_name("release") } else { beside.to_owned() }.join("phlix");
    assert!(program.exists(), "{} is not built: cargo build", program.display());
    program
}

/// Whether the program under test is the one that was built for release (`PHLIX_TEST_RELEASE`), whose costs can be
/// measured.
pub fn is_release() -> bool {
    std::env::var_os("PHLIX_TEST_RELEASE").is_some()
}

/// A command with nothing of the caller's environment but what programs need to run at all.
pub fn clean(program: impl AsRef<OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        .current_dir(home);
    for kept in ["RUST_LOG", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}
