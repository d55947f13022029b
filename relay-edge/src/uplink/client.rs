//! HTTP to the control plane: our own calls, and viewers' requests that are passed on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use phlix_protocol::b64;
use phlix_protocol::ids::EdgeId;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{self, EdgeIdentity};
use phlix_protocol::uplink::EDGE_HEADER;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::body::{self, Body};
use crate::config::Config;
use crate::{clock, random};

/// Longest answer to one of our own calls. The largest is a ticket.
const MAX_ANSWER: usize = 256 * 1024;

/// One of our own calls, at most.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A call that brought no answer of the expected kind.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody there, too slow, broken off.
    #[error("control plane is away: {0}")]
    Away(Arc<str>),
    /// It said no; the body is what it said.
    #[error("control plane answered {0}")]
    Refused(StatusCode, Bytes),
    /// It said something else than agreed.
    #[error("control plane's answer is malformed")]
    Malformed,
}

/// Speaks to one control plane as one edge.
#[derive(Clone)]
pub(crate) struct Client {
    base: Uri,
    id: EdgeId,
    key: Arc<SigningKey>,
    pool: Pool<HttpConnector, Body>,
}

impl Client {
    pub(crate) fn new(config: &Config) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(64)
            .build(connector);
        Self { base: config.control_plane.clone(), id: config.id, key: Arc::new(config.key.clone()), pool }
    }

    /// Our own call: JSON there, JSON back.
    pub(crate) async fn call<Q, A>(&self, method: Method, path: &str, question: Option<&Q>) -> Result<A, CallError>
    where
        Q: Serialize,
        A: DeserializeOwned,
    {
        let body = match question {
            Some(question) => Bytes::from(serde_json::to_vec(question).map_err(|_| CallError::Malformed)?),
            None => Bytes::new(),
        };
        let answer = async {
            let answer = self.send(method, path, body).await?;
            let status = answer.status();
            let bytes = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(away)?.to_bytes();
            Ok((status, bytes))
        };
        let (status, bytes) = tokio::time::timeout(CALL_TIMEOUT, answer)
            .await
            .map_err(|_| CallError::Away("no answer in time".into()))??;
        if status.is_success() {
            serde_json::from_slice(&bytes).map_err(|_| CallError::Malformed)
        } else if status.is_server_error() {
            // 5xx says nothing about the question: what is known stays good.
            Err(CallError::Away(status.as_str().into()))
        } else {
            Err(CallError::Refused(status, bytes))
        }
    }

    /// A GET whose answer never ends.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, CallError> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.send(Method::GET, path, Bytes::new()))
            .await
            .map_err(|_| CallError::Away("no answer in time".into()))??;
        if answer.status() != StatusCode::OK {
            return Err(CallError::Refused(answer.status(), Bytes::new()));
        }
        Ok(answer.into_body())
    }

    /// Passes a viewer's request on. The caller has cleaned its head; identity and address are put here.
    pub(crate) async fn pass_on(&self, mut request: Request<Body>) -> Result<Response<Incoming>, CallError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let identity = self.identity(request.method(), &path, None);
        request.headers_mut().insert(EDGE_HEADER, identity);
        *request.uri_mut() = self.uri(&path)?;
        *request.version_mut() = http::Version::HTTP_11;
        self.pool.request(request).await.map_err(away)
    }

    async fn send(&self, method: Method, path: &str, bytes: Bytes) -> Result<Response<Incoming>, CallError> {
        let identity = self.identity(&method, path, Some(&bytes));
        let request = Request::builder()
            .method(method)
            .uri(self.uri(path)?)
            .header(EDGE_HEADER, identity)
            .header(CONTENT_TYPE, "application/json")
            .header(HOST, self.base.authority().map_or("", |authority| authority.as_str()))
            .body(if bytes.is_empty() { body::empty() } else { body::full(bytes) })
            .map_err(|_| CallError::Malformed)?;
        self.pool.request(request).await.map_err(away)
    }

    fn uri(&self, path: &str) -> Result<Uri, CallError> {
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_| CallError::Malformed)?);
        Uri::from_parts(parts).map_err(|_| CallError::Malformed)
    }

    /// "This is edge E, making this very request."
    fn identity(&self, method: &Method, path: &str, body: Option<&[u8]>) -> HeaderValue {
        let claims = EdgeIdentity {
            sub: self.id,
            aud: EdgeIdentity::AUD.into(),
            iat: clock::unix_now(),
            jti: random::uuid().to_string(),
            htm: method.as_str().into(),
            htu: path.into(),
            bh: body.map(|body| b64::encode(Sha256::digest(body))),
        };
        HeaderValue::try_from(token::sign_self(&claims, &self.key)).expect("a JWT is printable ASCII")
    }
}

fn away(error: impl std::fmt::Display) -> CallError {
    CallError::Away(error.to_string().into())
}
