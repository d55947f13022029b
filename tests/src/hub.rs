//! `phlix serve` as a child process: started, killed, started again on the same ports and data.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use crate::api::Api;
use crate::database::Database;
use crate::process::{Process, clean, phlix};
use crate::until;

/// A debug build on two busy cores, its first start with a database to lay out.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A hub with its data folder.
#[derive(Debug)]
pub struct Hub {
    // First, so that the hub ends before its database and its folder go.
    process: Option<Process>,
    ready: Ready,
    settings: Vec<(String, String)>,
    database: Database,
    folder: tempfile::TempDir,
}

/// What `--ready-file` tells.
#[derive(Debug, Clone)]
pub struct Ready {
    pub http: SocketAddr,
    pub tls: SocketAddr,
    pub metrics: SocketAddr,
    pub public_url: String,
    pub public_domain: String,
    pub ca_file: PathBuf,
    pub spki_sha256: String,
    relay_ports: [Option<SocketAddr>; 2],
}

impl Ready {
    fn parse(json: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(json).ok()?;
        let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("ready file without {key}: {json}"));
        let address = |key: &str| text(key).parse().unwrap();
        let optional = |key: &str| value[key].as_str().and_then(|text| text.parse().ok());
        Some(Self {
            http: address("http"),
            tls: address("tls"),
            metrics: address("metrics"),
            public_url: text("public_url").to_owned(),
            public_domain: text("public_domain").to_owned(),
            ca_file: text("ca_file").into(),
            spki_sha256: text("spki_sha256").to_owned(),
            relay_ports: [optional("relay_server"), optional("relay_client")],
        })
    }
}

impl Ready {
    /// Where media servers hold their tunnels (8802).
    ///
    /// # Panics
    /// Where the hub did not tell.
    pub fn relay_server(&self) -> SocketAddr {
        self.relay_ports[0].expect("the ready file tells `relay_server`")
    }

    /// Where raw clients mount (8803).
    ///
    /// # Panics
    /// Where the hub did not tell.
    pub fn relay_client(&self) -> SocketAddr {
        self.relay_ports[1].expect("the ready file tells `relay_client`")
    }
}

impl Hub {
    /// A new hub; `settings` are environment variables on top of what the harness sets.
    pub async fn start(database: Database, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("phlix-hub").tempdir().unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut hub = Self {
            process: None,
            ready: Ready {
                http: nowhere,
                tls: nowhere,
                metrics: nowhere,
                public_url: String::new(),
                public_domain: String::new(),
                ca_file: PathBuf::new(),
                spki_sha256: String::new(),
                relay_ports: [None, None],
            },
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            database,
            folder,
        };
        hub.start_again().await;
        hub
    }

    /// Starts it where it is not running: the first time on ports of the kernel's choice, then on
    /// the same.
    pub async fn start_again(&mut self) {
        self.begin();
        self.wait_ready().await;
    }

    /// Starts the program and returns at once.
    pub fn begin(&mut self) {
        let ready_file = self.ready_file();
        let _ = fs::remove_file(&ready_file);
        let mut command = clean(phlix(), self.folder.path());
        command
            .arg("serve")
            .arg("--ready-file")
            .arg(&ready_file)
            .env("HUB_HOST", "127.0.0.1")
            .env("HUB_CONTROL_PORT", "0")
            .env("HUB_DATA_DIR", self.data_folder())
            .env("HUB_PORT", self.ready.http.port().to_string())
            .env("HUB_TLS_PORT", self.ready.tls.port().to_string())
            .env("HUB_METRICS_PORT", self.ready.metrics.port().to_string());
        for (name, address) in ["HUB_RELAY_SERVER_PORT", "HUB_RELAY_CLIENT_PORT"].iter().zip(self.ready.relay_ports) {
            command.env(name, address.map_or(0, |a| a.port()).to_string());
        }
        if let Some(url) = self.database.url() {
            command.env("HUB_DATABASE_URL", url);
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn("hub", self.folder.path(), &mut command));
    }

    /// Waits until it listens.
    pub async fn wait_ready(&mut self) {
        let ready_file = self.ready_file();
        let process = self.process.as_mut().unwrap();
        self.ready = until("the hub is ready", START_LIMIT, || {
            process.must_run();
            let ready = fs::read_to_string(&ready_file).ok();
            std::future::ready(ready.as_deref().and_then(Ready::parse))
        })
        .await;
    }

    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub fn data_folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Waits until it has logged a line with this in it.
    pub async fn logged(&mut self, text: &str) {
        let process = self.process.as_mut().unwrap();
        let what = format!("the hub logs {text:?}");
        until(&what, Duration::from_secs(10), || std::future::ready(process.output().contains(text).then_some(())))
            .await;
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and how it ended.
    pub async fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        process.terminate(Duration::from_secs(30)).await
    }

    /// A client of its API that is nobody yet.
    pub fn api(&self) -> Api {
        Api::new(self.ready.http)
    }

    /// The CA that its viewers trust.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ready.ca_file).unwrap()).unwrap();
        roots
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }
}
