//! An unmodified Phlix media server, as its peers see it: the double of `tests/python/media_server.py`, written
//! from the wire's description alone. And a world with one: hub, server, owner.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::api::Api;
use crate::database::{Database, Engine};
use crate::hub::Hub;
use crate::process::Process;
use crate::viewer::{Client, Protocol};
use crate::world::Server;
use crate::{media, python, until};

const LIMIT: Duration = Duration::from_secs(60);

/// The item that is a real video; the item that is as big as `?size=` says, its byte `i` being `i mod 251`.
pub const EXAMPLE: &str = "aaaaaaaa-0000-4000-8000-000000000001";
pub const BIG: &str = "aaaaaaaa-0000-4000-8000-000000000002";
/// Its libraries: two films, three items of another kind.
pub const FILMS: &str = "11111111-1111-4111-8111-111111111111";
pub const PRIVATE: &str = "22222222-2222-4222-8222-222222222222";

/// Frame types that a server may be sent, and those that come back.
pub const HEARTBEAT: &str = "6";
pub const HTTP_CANCEL: &str = "18";

/// A media server with its state folder. Comes back 0.1 to 0.5 s after a drop where a real one takes 10 s.
#[derive(Debug)]
pub struct Legacy {
    process: Option<Process>,
    hub_url: String,
    tunnel_url: String,
    extra: Vec<String>,
    folder: tempfile::TempDir,
}

impl Legacy {
    /// Starts a new one, which then waits to be claimed.
    pub fn start(hub: &Hub) -> Self {
        Self::start_with(hub, &[])
    }

    /// As [`Legacy::start`], with more arguments.
    pub fn start_with(hub: &Hub, extra: &[&str]) -> Self {
        let http = format!("http://localhost:{}", hub.ready().http.port());
        Self::start_at(&http, &format!("ws://{}", hub.ready().relay_server()), extra)
    }

    /// At a hub and a tunnel port of other addresses.
    pub fn start_at(hub_url: &str, tunnel_url: &str, extra: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("phlix-legacy").tempdir().unwrap();
        let mut legacy = Self {
            process: None,
            hub_url: hub_url.to_owned(),
            tunnel_url: tunnel_url.to_owned(),
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            folder,
        };
        legacy.start_again();
        legacy
    }

    /// Starts it where it is not running, with the enrollment that it has.
    pub fn start_again(&mut self) {
        let _ = fs::remove_file(self.ready_file());
        let media = media::folder();
        let mut command = python::script("media_server.py");
        command
            .args(["--hub", &self.hub_url, "--tunnel", &self.tunnel_url])
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .arg("--ready-file")
            .arg(self.ready_file())
            .arg("--video")
            .arg(media.join("video.mp4"))
            .arg("--hls")
            .arg(media.join("hls"))
            .args(["--poll", "0.2", "--reconnect-delay", "0.05", "--reconnect-max-delay", "0.5"])
            .args(&self.extra)
            .env_remove("http_proxy")
            .env_remove("https_proxy");
        self.process = Some(Process::spawn("legacy", self.folder.path(), &mut command));
    }

    /// More arguments for its next start.
    pub fn add(&mut self, extra: &[&str]) {
        self.extra.extend(extra.iter().map(|arg| (*arg).to_owned()));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    /// Lets everybody else on the machine go first.
    pub fn step_back(&self) {
        let id = self.process.as_ref().unwrap().id().to_string();
        let done = Command::new("renice").args(["-n", "19", "-p", &id]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// The claim code that it asks people to enter.
    pub async fn claim_code(&mut self) -> String {
        self.wait("the server has a claim code", |ready| ready["claim_code"].as_str().map(str::to_owned)).await
    }

    /// Waits until its tunnel stands.
    pub async fn connected(&mut self) {
        self.wait("the server is connected", |ready| (ready["connected"] == true).then_some(())).await;
    }

    pub async fn disconnected(&mut self) {
        self.wait("the server is disconnected", |ready| (ready["connected"] == false).then_some(())).await;
    }

    /// `hub-enrollment.json`.
    pub fn enrollment(&self) -> Value {
        let file = self.folder.path().join("state/hub-enrollment.json");
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    }

    pub fn jwt(&self) -> String {
        self.enrollment()["enrollment_jwt"].as_str().unwrap().to_owned()
    }

    /// Its own HTTP port.
    pub fn origin(&self) -> SocketAddr {
        self.port("origin")
    }

    /// All that it has seen and done since it started.
    pub async fn records(&self) -> Records {
        Records(Api::new(self.port("control")).get("/records").await.expect(200))
    }

    /// Waits until its records tell something.
    pub async fn shows<T>(&self, what: &str, limit: Duration, find: impl Fn(&Records) -> Option<T>) -> T {
        until(what, limit, || async { find(&self.records().await) }).await
    }

    /// Has it call the hub (`heartbeat`, `old_heartbeat`, `renew`, `subdomain`, `release`): status and reply.
    pub async fn calls(&self, what: &str) -> (u64, Value) {
        let told = Api::new(self.port("control")).post("/do", &json!({ "call": what })).await.expect(200);
        (told["status"].as_u64().unwrap(), told["body"].clone())
    }

    /// Cuts its tunnel without a word; it comes back by itself.
    pub async fn cut(&self) {
        Api::new(self.port("control")).post("/do", &json!({ "drop": true })).await.expect(200);
    }

    fn port(&self, name: &str) -> SocketAddr {
        let ready: Value = serde_json::from_str(&fs::read_to_string(self.ready_file()).unwrap()).unwrap();
        let port = ready[name].as_u64().unwrap().try_into().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port))
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

/// What `GET /records` tells.
#[derive(Debug)]
pub struct Records(pub Value);

impl Records {
    /// Relayed requests for a path, in their order.
    pub fn requests(&self, path: &str) -> Vec<&Value> {
        self.list("requests").iter().filter(|request| request["path"] == path).collect()
    }

    /// The last of them.
    #[track_caller]
    pub fn last(&self, path: &str) -> &Value {
        self.requests(path).pop().unwrap_or_else(|| panic!("{path} never came: {}", self.0["requests"]))
    }

    pub fn list(&self, name: &str) -> &[Value] {
        self.0[name].as_array().unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    /// Connections that were tried; `acked` tells which became tunnels.
    pub fn tunnels(&self) -> Vec<&Value> {
        self.list("tunnels").iter().filter(|tunnel| tunnel["acked"].is_number()).collect()
    }

    /// Frames of a type that came.
    pub fn came(&self, kind: &str) -> u64 {
        self.0["frames_in"][kind].as_u64().unwrap_or_default()
    }

    /// Panics where the hub sent what a media server does not survive.
    #[track_caller]
    pub fn unharmed(&self) {
        for trouble in ["wedged", "unexpected", "errors", "refusals"] {
            assert!(self.list(trouble).is_empty(), "{trouble}: {}", self.0[trouble]);
        }
    }
}

/// A moment in the double's records (the machine's wall clock).
pub fn moment(value: &Value) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(value.as_f64().unwrap_or_else(|| panic!("no moment: {value}")))
}

/// A header of a recorded request, by its name in lower case.
pub fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    request["headers"].as_object()?.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?.1.as_str()
}

/// A hub, a media server that was claimed and holds its tunnel, and the owner.
#[derive(Debug)]
pub struct LegacyWorld {
    pub legacy: Legacy,
    pub hub: Hub,
    pub owner: Api,
    pub server: String,
}

impl LegacyWorld {
    pub async fn start(engine: Engine) -> Self {
        Self::with(engine, &[], &[]).await
    }

    /// With settings of the hub's and arguments of the server's.
    pub async fn with(engine: Engine, settings: &[(&str, &str)], extra: &[&str]) -> Self {
        let hub = Hub::start(Database::fresh(engine), settings).await;
        let owner = hub.api().register("owner").await;
        let legacy = Legacy::start_with(&hub, extra);
        Self::of(hub, owner, legacy).await
    }

    /// Of parts that are there.
    pub async fn of(hub: Hub, owner: Api, mut legacy: Legacy) -> Self {
        let server = owner.claim(&legacy.claim_code().await).await;
        legacy.connected().await;
        Self { legacy, hub, owner, server }
    }

    /// A path of the server's under the hub's own address.
    pub fn path(&self, path: &str) -> String {
        proxied(&self.server, path)
    }

    /// The server as its clients reach it: the hub over TLS, and the proxy's path.
    pub fn proxy(&self) -> Server {
        let url = format!("https://localhost:{}/api/v1/servers/{}/proxy", self.hub.ready().tls.port(), self.server);
        Server { id: self.server.clone(), url, host: "localhost".to_owned() }
    }

    /// What the owner's apps send as `Authorization`.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.owner.bearer().unwrap())
    }

    /// A connection to the hub over TLS.
    pub async fn viewer(&self, protocol: Protocol) -> Client {
        Client::connect(&self.hub, "localhost", protocol).await
    }
}

/// `/api/v1/servers/{id}/proxy` before a path.
pub fn proxied(server: &str, path: &str) -> String {
    format!("/api/v1/servers/{server}/proxy{path}")
}
