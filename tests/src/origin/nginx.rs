//! nginx serving a folder: a real origin that is not ours.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use phlix_certs::dev::DevCerts;

use crate::hub::Hub;
use crate::process::{Process, clean};
use crate::until;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
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
        let conf = configuration(home.path(), root, &listen);
        let process = start(home.path(), &conf, || UnixStream::connect(&socket).is_ok()).await;
        let url = format!("unix://{}", socket.display());
        Self { process: process.expect("nginx starts"), url, home }
    }

    /// Terminates TLS at `port` with the hub's own certificate, and speaks plain HTTP to it, as people set it
    /// up; `None` where somebody else took the port.
    pub async fn before(hub: &Hub, port: u16) -> Option<Self> {
        let home = new_home();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let conf = terminating(home.path(), hub, address);
        let process = start(home.path(), &conf, || TcpStream::connect(address).is_ok()).await?;
        Some(Self { process, url: format!("https://{address}"), home })
    }

    /// Terminates TLS before a server that speaks plain HTTP, as nginx does it by itself: what is not said here is its
    /// default.
    pub async fn proxy_tls(to: &Self) -> Self {
        let location =
            format!("location / {{ proxy_pass {}; proxy_http_version 1.1; proxy_max_temp_file_size 0; }}", to.url);
        Self::on_some_port("https", |home, address| {
            let certificates = home.display();
            around(
                home,
                &format!(
                    "
  server {{
    listen {address} ssl;
    ssl_certificate {certificates}/dev-leaf.pem; ssl_certificate_key {certificates}/dev-leaf.key;
    {location}
  }}"
                ),
            )
        })
        .await
    }

    async fn on_a_port(root: &Path, tls: &str, scheme: &str) -> Self {
        Self::on_some_port(scheme, |home, address| configuration(home, root, &format!("{address}{tls}"))).await
    }

    async fn on_some_port(scheme: &str, configuration: impl Fn(&Path, SocketAddr) -> String) -> Self {
        let home = new_home();
        DevCerts::load_or_issue(home.path(), "origin.localhost", &[], SystemTime::now()).unwrap();
        // nginx cannot ask for port 0. Somebody may take the one found here before nginx does: then
        // nginx ends and the next is tried.
        for _ in 0..5 {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let listens = || TcpStream::connect(address).is_ok();
            let conf = configuration(home.path(), address);
            if let Some(process) = start(home.path(), &conf, listens).await {
                return Self { process, url: format!("{scheme}://{address}"), home };
            }
        }
        panic!("nginx does not start");
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The one process that it is.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub fn ca_file(&self) -> PathBuf {
        self.home.path().join("dev-ca.pem")
    }
}

fn new_home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("phlix-nginx").tempdir().unwrap()
}

/// `None` where nginx ends instead of listening.
async fn start(home: &Path, configuration: &str, listens: impl Fn() -> bool) -> Option<Process> {
    let conf = home.join("nginx.conf");
    fs::write(&conf, configuration).unwrap();
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

/// A port that nobody has at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn configuration(home: &Path, root: &Path, listen: &str) -> String {
    let root = root.display();
    let tls = if listen.ends_with(" ssl") {
        let home = home.display();
        format!("ssl_certificate {home}/dev-leaf.pem; ssl_certificate_key {home}/dev-leaf.key;")
    } else {
        String::new()
    };
    around(
        home,
        &format!(
            "
  types {{ video/mp4 mp4; application/vnd.apple.mpegurl m3u8; video/mp2t ts; text/html html; }}
  default_type application/octet-stream;
  server {{
    listen {listen};
    {tls}
    root {root};
    location = /small {{ default_type text/plain; return 200 'small'; }}
  }}"
        ),
    )
}

fn terminating(home: &Path, hub: &Hub, listen: SocketAddr) -> String {
    let (http, certificates) = (hub.ready().http.port(), hub.ready().ca_file.parent().unwrap().display());
    around(
        home,
        &format!(
            "
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen {listen} ssl http2;
    ssl_certificate {certificates}/dev-leaf.pem; ssl_certificate_key {certificates}/dev-leaf.key;
    client_max_body_size 0;
    location / {{
      proxy_pass http://127.0.0.1:{http};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 1h;
    }}
  }}"
        ),
    )
}

/// What any of ours says, around its servers.
fn around(home: &Path, servers: &str) -> String {
    let home = home.display();
    // One process in the foreground, so that killing it is all. As root nginx would drop to
    // `nobody`, who may not read a temporary folder.
    let user = if is_root() { "user root;" } else { "" };
    format!(
        "
daemon off; master_process off; {user} pid {home}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; keepalive_requests 100000;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  {servers}
}}
"
    )
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t"))
}
