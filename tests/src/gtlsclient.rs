//! ngtcp2's client: a viewer over HTTP/3 that is not ours, fast enough for large files. It sends no header
//! of the caller's choice, so the name must be open, and trusts everybody. It says in its exit code
//! nothing of how the stream ended: compare what came.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::viewer::Door;

/// What came of a download.
#[derive(Debug)]
pub struct Download {
    pub printed: String,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

/// Downloads a path of a name.
pub async fn download(door: &Door, path: &str, limit: Duration) -> Download {
    let folder = tempfile::tempdir().unwrap();
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), format!("{} {}\n", door.address.ip(), door.host)).unwrap();
    let url = format!("https://{}:{}{path}", door.host, door.address.port());
    let mut command = tokio::process::Command::new("gtlsclient");
    command
        .args(["--quiet", "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", "--disable-early-data"])
        .arg("--download")
        .arg(folder.path())
        .args([&door.host, &door.address.port().to_string(), &url])
        // What it takes for SNI is the host that it looks up, and no system knows ours.
        .env("LD_PRELOAD", "libnss_wrapper.so")
        .env("NSS_WRAPPER_HOSTS", hosts.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let out = tokio::time::timeout(limit, command.output()).await.expect("gtlsclient ends").unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let file = folder.path().join(path.rsplit('/').next().unwrap());
    Download { printed, file, _folder: folder }
}

impl Download {
    pub fn file(&self) -> &Path {
        &self.file
    }
}
