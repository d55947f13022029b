//! nginx serving a folder: a real origin that is not ours.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::process::{Process, clean};
use crate::until;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    _process: Process,
    port: u16,
    _home: tempfile::TempDir,
}

impl Nginx {
    /// Serves `root` on a port of loopback.
    pub async fn serve(root: &Path) -> Self {
        let home = tempfile::Builder::new().prefix("phlix-nginx").tempdir().unwrap();
        // nginx cannot ask for port 0. Somebody may take the one found here before nginx does: then
        // nginx ends and the next is tried.
        for _ in 0..5 {
            let port = free_port();
            if let Some(process) = start(home.path(), root, port).await {
                return Self { _process: process, port, _home: home };
            }
        }
        panic!("nginx does not start");
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn start(home: &Path, root: &Path, port: u16) -> Option<Process> {
    let conf = home.join("nginx.conf");
    fs::write(&conf, configuration(home, root, port)).unwrap();
    let mut command = clean("nginx", home);
    command.arg("-c").arg(&conf).arg("-p").arg(home).args(["-e", "stderr"]);
    let mut process = Process::spawn("nginx", home, &mut command);
    until("nginx listens or ends", Duration::from_secs(10), || {
        let ended = process.exited().is_some();
        async move {
            if ended {
                return Some(false);
            }
            TcpStream::connect(("127.0.0.1", port)).await.ok().map(|_| true)
        }
    })
    .await
    .then_some(process)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn configuration(home: &Path, root: &Path, port: u16) -> String {
    let (home, root) = (home.display(), root.display());
    // One process in the foreground, so that killing it is all. As root nginx would drop to
    // `nobody`, who may not read a temporary folder.
    let user = if is_root() { "user root;" } else { "" };
    format!(
        "
daemon off; master_process off; {user} pid {home}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  types {{ video/mp4 mp4; application/vnd.apple.mpegurl m3u8; video/mp2t ts; text/html html; }}
  default_type application/octet-stream;
  access_log off; sendfile on; keepalive_requests 100000;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    location = /small {{ default_type text/plain; return 200 'small'; }}
  }}
}}
"
    )
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}
