//! A client of the hub's JSON API.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// A caller of the API: nobody, or somebody with a bearer.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    bearer: Option<String>,
    /// Headers on top, as a browser sends them.
    headers: Vec<(String, String)>,
}

/// An answer, its body read as JSON (`null` where it is none).
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body, where the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// The `Set-Cookie` headers.
    pub fn cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[track_caller]
    pub fn expect_code(self, status: u16, code: &str) {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{body}");
    }
}

impl Api {
    pub fn new(address: SocketAddr) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address, bearer: None, headers: Vec::new() }
    }

    /// The same hub, as the holder of a token.
    #[must_use]
    pub fn with_bearer(&self, token: &str) -> Self {
        Self { bearer: Some(token.to_owned()), ..self.clone() }
    }

    /// The token that it sends.
    pub fn bearer(&self) -> Option<&str> {
        self.bearer.as_deref()
    }

    /// A header that it sends on top.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The same, with one more header on every call.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.headers.push((name.to_owned(), value.to_owned()));
        with
    }

    /// The address where pages of the hub have their origin.
    pub fn origin(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// Signs an account of [`Api::register`] in as a browser does: the session is a cookie.
    pub async fn login_as_browser(&self, name: &str) -> Self {
        let credentials = json!({ "username": name, "password": password(name) });
        let answer = self.with_header("origin", &self.origin()).post("/api/v1/auth/login", &credentials).await;
        let cookie = answer
            .cookies()
            .into_iter()
            .find_map(|cookie| {
                cookie.starts_with("__Host-phlix-s=").then(|| cookie.split(';').next().unwrap().to_owned())
            })
            .unwrap_or_else(|| panic!("no session cookie: {:?}", answer.headers));
        self.with_header("cookie", &cookie)
    }

    /// Makes an account and gives the API as that user.
    pub async fn register(&self, name: &str) -> Self {
        let session = self
            .post(
                "/api/v1/auth/register",
                &json!({
                    "username": name,
                    "email": format!("{name}@example.com"),
                    "password": password(name),
                }),
            )
            .await
            .expect(201);
        self.with_bearer(session["access_token"].as_str().unwrap())
    }

    /// Signs an account of [`Api::register`] in.
    pub async fn login(&self, name: &str) -> Self {
        let credentials = json!({ "username": name, "password": password(name) });
        let session = self.post("/api/v1/auth/login", &credentials).await.expect(200);
        self.with_bearer(session["access_token"].as_str().unwrap())
    }

    /// Redeems a claim code; the new server's id.
    pub async fn claim(&self, code: &str) -> String {
        let claimed = self.post("/api/v1/server-claims/claim", &json!({ "claim_code": code })).await.expect(200);
        claimed["server_id"].as_str().unwrap().to_owned()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(method, path, body).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// As [`Api::call`], for a hub that may be away.
    ///
    /// # Errors
    /// Where there is no HTTP answer.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://localhost:{}{path}", self.address.port()))
            .header("accept", "application/json")
            .header("accept-phlix-protocol", "v1");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        let (parts, body) = self.client.request(request.body(Full::new(body))?).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }
}

/// The password that a story's account has.
pub fn password(name: &str) -> String {
    format!("the password of {name}")
}
