//! nginx serving a folder: a real origin that is not ours.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use phlix_certs::dev::DevCerts;

use crate::process::{Process, clean};
use crate::until;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    _process: Process,
    url: String,
    home: tempfile::TempDir,
}

impl Nginx {
    /// Serves `root` on a port of loopback.
    pub async fn serve(root: &Path) -> Self {
        Self::on_a_port(root, "", "http").await
    }

    /// Serves `root` over TLS; who trusts [`Nginx::ca_file`] accepts it as `localhost` and `127.0.0.1`.
    pub async fn serve_tls(root: &Path) -> Self {
        Self::on_a_port(root, " ssl", "https").await
    }

    /// Serves `root` on a Unix socket.
    pub async fn serve_unix(root: &Path) -> Self {
        let home = new_home();
        let socket = home.path().join("s.sock");
        let listen = format!("unix:{}", socket.display());
        let process = start(home.path(), root, &listen, || UnixStream::connect(&socket).is_ok()).await;
        let url = format!("unix://{}", socket.display());
        Self { _process: process.expect("nginx starts"), url, home }
    }

    async fn on_a_port(root: &Path, tls: &str, scheme: &str) -> Self {
        let home = new_home();
        DevCerts::load_or_issue(home.path(), "origin.localhost", &[], SystemTime::now()).unwrap();
        // nginx cannot ask for port 0. Somebody may take the one found here before nginx does: then
        // nginx ends and the next is tried.
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let listens = || TcpStream::connect(address).is_ok();
            if let Some(process) = start(home.path(), root, &format!("{address}{tls}"), listens).await {
                return Self { _process: process, url: format!("{scheme}://{address}"), home };
            }
        }
        panic!("nginx does not start");
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn ca_file(&self) -> PathBuf {
        self.home.path().join("dev-ca.pem")
    }
}

fn new_home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("phlix-nginx").tempdir().unwrap()
}

/// `None` where nginx ends instead of listening.
async fn start(home: &Path, root: &Path, listen: &str, listens: impl Fn() -> bool) -> Option<Process> {
    let conf = home.join("nginx.conf");
    fs::write(&conf, configuration(home, root, listen)).unwrap();
    let mut command = clean("nginx", home);
    command.arg("-c").arg(&conf).arg("-p").arg(home).args(["-e", "stderr"]);
    let mut process = Process::spawn("nginx", home, &mut command);
    until("nginx listens or ends", Duration::from_secs(10), || {
        let told = match process.exited() {
            Some(_) => Some(false),
            None => listens().then_some(true),
        };
        std::future::ready(told)
    })
    .await
    .then_some(process)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn configuration(home: &Path, root: &Path, listen: &str) -> String {
    let (home, root) = (home.display(), root.display());
    // One process in the foreground, so that killing it is all. As root nginx would drop to
    // `nobody`, who may not read a temporary folder.
    let user = if is_root() { "user root;" } else { "" };
    let tls = if listen.ends_with(" ssl") {
        format!("ssl_certificate {home}/dev-leaf.pem; ssl_certificate_key {home}/dev-leaf.key;")
    } else {
        String::new()
    };
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
    listen {listen};
    {tls}
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
