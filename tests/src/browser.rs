//! Headless Chromium, driven by scripts over the web UI's playwright, trusting the development CA.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::hub::Hub;

/// A script of the web UI's own.
pub fn of_web_ui(script: &str) -> PathBuf {
    web_ui().join("e2e").join(script)
}

/// A script in `tests/browser`.
pub fn of_tests(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("browser").join(script)
}

/// Runs a script in a home whose certificate store trusts the hub's CA; gives what it
/// printed, panics where it fails or takes longer than `limit`.
pub async fn run(hub: &Hub, script: &Path, env: &[(&str, &str)], limit: Duration) -> String {
    let home = tempfile::Builder::new().prefix("phlix-browser").tempdir().unwrap();
    trust(home.path(), &hub.ready().ca_file);
    let mut command = Command::new("node");
    command
        .arg(script)
        .current_dir(web_ui())
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .env("XDG_CACHE_HOME", home.path().join("cache"))
        .env("HUB_URL", &hub.ready().public_url)
        .env("CHROMIUM", chromium())
        .envs(env.iter().copied())
        .stdin(Stdio::null());
    let run = tokio::process::Command::from(command).kill_on_drop(true).output();
    let out = tokio::time::timeout(limit, run)
        .await
        .unwrap_or_else(|_| panic!("{} took longer than {limit:?}", script.display()))
        .unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}: {}\n{printed}", script.display(), out.status);
    printed
}

/// Makes the certificate store of a new home and puts the CA into it.
fn trust(home: &Path, ca: &Path) {
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store).unwrap();
    let store = format!("sql:{}", store.display());
    certutil(Command::new("certutil").args(["-d", &store, "-N", "--empty-password"]));
    certutil(Command::new("certutil").args(["-d", &store, "-A", "-n", "phlix", "-t", "C,,", "-i"]).arg(ca));
}

fn certutil(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "certutil: {out:?}");
}

fn chromium() -> PathBuf {
    let found = ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| {
        std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.exists())
    });
    found.expect("Chromium is installed by deploy/dev/need.sh test")
}

fn web_ui() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../web-ui")
}
