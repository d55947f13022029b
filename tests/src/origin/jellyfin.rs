//! A media server in Jellyfin's manner: a web client that signs in by JSON, an API with an
//! `Authorization` header of its own, posters behind a session cookie, uploads, a WebSocket that pushes.
//!
//! | path | does |
//! |---|---|
//! | `/` | 302 to `/web/` |
//! | `/web/` | the client: one page |
//! | `POST /Users/AuthenticateByName` | `{Username, Pw}`; right: `{AccessToken}` and the session cookie |
//! | `/Items` | JSON, for `Authorization: MediaBrowser Token="…"`; else 401 |
//! | `/Items/ID/Images/Primary` | a PNG, for the cookie; POSTed for the token: replaced, and its hash told |
//! | `/socket?api_key=` | pushes, and answers `KeepAlive` |
//! | `/System/Restart` | what no stranger may reach: counted |

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::socket::{self, Socket};
use crate::hash;

pub const USER: &str = "grandma";
pub const PASSWORD: &str = "jellyfin's own";
const TOKEN: &str = "2f1c0a9be6d94a7c8d3e5b4a39281706";
const COOKIE_PAIR: &str = "jellyfin-session=a41c";

/// The running server.
#[derive(Debug)]
pub struct Jellyfin {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Shared {
    poster: Mutex<Bytes>,
    seen: Mutex<Vec<Seen>>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
}

impl Jellyfin {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { poster: Mutex::new(picture()), seen: Mutex::default() });
        let serving = Arc::clone(&shared);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let shared = Arc::clone(&shared);
                        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
                    });
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // A connection that breaks is its viewer's affair.
                    let _ = connection.with_upgrades().await;
                });
            }
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request that has come.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Jellyfin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A poster, as large as posters are.
pub fn picture() -> Bytes {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("poster.png");
    let out = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-nostdin", "-f", "lavfi", "-i", "mandelbrot=size=400x600", "-frames:v", "1"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(out.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&out.stderr));
    std::fs::read(file).unwrap().into()
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let headers = request.headers().clone();
    shared.seen.lock().unwrap().push(Seen { method: method.clone(), path: path.clone(), headers });
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let authorized = token.is_some_and(|value| value.contains(&format!("Token=\"{TOKEN}\"")));
    let is_post = method == Method::POST;
    match path.as_str() {
        "/" => status(StatusCode::FOUND, |response| response.header(LOCATION, "/web/")),
        "/web/" => of_type("text/html; charset=utf-8", PAGE),
        "/Users/AuthenticateByName" if is_post => authenticate(request).await,
        "/Items" if authorized => {
            let item = |id: u32, name: &str| json!({ "Id": id, "Name": name });
            of_json(&json!({ "Items": [item(1, "A poster"), item(2, "The same poster")] }))
        }
        "/Items/1/Images/Primary" if is_post && authorized => {
            let Ok(body) = request.into_body().collect().await else {
                return status(StatusCode::BAD_REQUEST, |response| response);
            };
            let body = body.to_bytes();
            let told = of_json(&json!({ "length": body.len(), "sha256": hash::of(&body) }));
            *shared.poster.lock().unwrap() = body;
            told
        }
        "/Items/1/Images/Primary" | "/Items/2/Images/Primary" if signed_in(request.headers()) => {
            of_type("image/png", shared.poster.lock().unwrap().clone())
        }
        "/socket" if request.uri().query() == Some(&format!("api_key={TOKEN}")) => {
            match socket::upgrade(request, push) {
                Some(response) => response.map(|_| Full::default()),
                None => status(StatusCode::UPGRADE_REQUIRED, |response| response),
            }
        }
        "/System/Restart" => status(StatusCode::NO_CONTENT, |response| response),
        "/Items" | "/socket" => status(StatusCode::UNAUTHORIZED, |response| response),
        path if path.starts_with("/Items/") => status(StatusCode::UNAUTHORIZED, |response| response),
        _ => status(StatusCode::NOT_FOUND, |response| response),
    }
}

async fn authenticate(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    if told["Username"] != USER || told["Pw"] != PASSWORD {
        return status(StatusCode::UNAUTHORIZED, |response| response);
    }
    let mut response = of_json(&json!({ "AccessToken": TOKEN, "User": { "Name": USER } }));
    let cookie = format!("{COOKIE_PAIR}; Path=/; HttpOnly; SameSite=Lax");
    response.headers_mut().insert(SET_COOKIE, cookie.parse().unwrap());
    response
}

/// Ten messages, 100 ms apart, and an answer to each `KeepAlive` meanwhile.
async fn push(mut socket: Socket) {
    let mut timer = tokio::time::interval(Duration::from_millis(100));
    let mut pushed = 0;
    loop {
        let message = tokio::select! {
            came = socket.next() => match came {
                Some(Ok(Message::Text(text))) if text.contains("KeepAlive") => json!({ "MessageType": "KeepAlive" }),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
            _ = timer.tick(), if pushed < 10 => {
                pushed += 1;
                json!({ "MessageType": "Sessions", "Data": pushed })
            }
        };
        if socket.send(Message::text(message.to_string())).await.is_err() {
            return;
        }
    }
}

fn signed_in(headers: &HeaderMap) -> bool {
    let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(';')).any(|cookie| cookie.trim() == COOKIE_PAIR)
}

fn of_json(value: &Value) -> Response<Full<Bytes>> {
    of_type("application/json", value.to_string())
}

fn of_type(kind: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder().header(CONTENT_TYPE, kind).header(CACHE_CONTROL, "no-store");
    response.body(Full::new(body.into())).unwrap()
}

fn status(
    status: StatusCode,
    more: impl FnOnce(http::response::Builder) -> http::response::Builder,
) -> Response<Full<Bytes>> {
    more(Response::builder().status(status)).body(Full::default()).unwrap()
}

const PAGE: &str = r#"<!doctype html><html lang="en"><title>Jellyfin-like</title>
<style>body { font: 16px sans-serif; background: #101010; color: #ddd } img { width: 120px; margin: 8px }</style>
<h1>Jellyfin-like</h1>
<form id="login"><label>User <input name="user"></label> <label>Password <input name="password" type="password"></label>
<button>Sign in</button></form>
<div id="items"></div><label>New poster <input id="file" type="file"></label>
<pre id="uploaded"></pre><pre id="pushed"></pre>
<script>
const at = (id) => document.getElementById(id);
let token;
const headers = () => ({ Authorization: `MediaBrowser Client="web", Device="test", Token="${token}"` });
at("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const answer = await fetch("/Users/AuthenticateByName", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ Username: form.get("user"), Pw: form.get("password") }),
  });
  if (!answer.ok) { document.title = "refused"; return; }
  token = (await answer.json()).AccessToken;
  const { Items } = await (await fetch("/Items", { headers: headers() })).json();
  for (const { Id, Name } of Items) {
    const image = new Image();
    image.alt = Name;
    image.src = `/Items/${Id}/Images/Primary`;
    at("items").append(image);
  }
  const socket = new WebSocket(`wss://${location.host}/socket?api_key=${token}`);
  socket.onopen = () => socket.send(JSON.stringify({ MessageType: "KeepAlive" }));
  socket.onmessage = ({ data }) => { at("pushed").textContent += data + "\n"; };
  socket.onclose = () => { at("pushed").textContent += "closed\n"; };
  at("login").remove();
});
at("file").addEventListener("change", async ({ target }) => {
  const answer = await fetch("/Items/1/Images/Primary", {
    method: "POST",
    headers: { ...headers(), "Content-Type": "image/png" },
    body: target.files[0],
  });
  at("uploaded").textContent = await answer.text();
});
</script></html>"#;
