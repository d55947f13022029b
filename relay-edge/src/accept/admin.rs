//! Metrics and health, for the machine's own eyes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::{Stage, Stages, reached};
use crate::body::{self, Body};
use crate::metrics::Metrics;
use crate::road::Road;

/// The listener on loopback.
pub(crate) struct Admin {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) road: Arc<Road>,
    /// What else this process counts.
    pub(crate) more: Vec<prometheus::Registry>,
    pub(crate) stages: Stages,
}

impl Admin {
    /// Answers until the edge drops: it is asked most while the edge finishes.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut stages = self.stages.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = reached(&mut stages, Stage::Dropping) => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = admin.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                let mut stages = admin.stages.clone();
                tokio::select! {
                    // Whoever breaks off has lost nothing that we could tell it.
                    _ = connection => {}
                    () = reached(&mut stages, Stage::Dropping) => {}
                }
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        match request.uri().path() {
            "/metrics" => {
                self.refresh();
                match self.metrics.page(&self.more) {
                    Ok(page) => {
                        let mut response = Response::new(body::full(page));
                        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                        response.headers_mut().insert(CONTENT_TYPE, kind);
                        response
                    }
                    Err(error) => {
                        tracing::error!(%error, "metrics can't be written");
                        text(StatusCode::INTERNAL_SERVER_ERROR, "metrics can't be written\n")
                    }
                }
            }
            "/health" => text(StatusCode::OK, "ok\n"),
            "/ready" if self.is_ready() => text(StatusCode::OK, "ready\n"),
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, self.why_not()),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /health and /ready\n"),
        }
    }

    fn is_ready(&self) -> bool {
        self.road.is_ready() && *self.stages.borrow() == Stage::Running
    }

    fn why_not(&self) -> &'static str {
        if *self.stages.borrow() > Stage::Running {
            "this edge is going away\n"
        } else if !self.road.is_approved() {
            "the hub has not admitted this edge\n"
        } else {
            "the hub's bulletin has not been read\n"
        }
    }

    /// Numbers that are read when asked for.
    fn refresh(&self) {
        self.metrics.ready.set(i64::from(self.is_ready()));
        let revision = self.road.revision();
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has doubles; revisions stay far below 2^53")]
        self.metrics.revision.set(revision as f64);
    }
}

fn text(status: StatusCode, content: &'static str) -> Response<Body> {
    let mut response = Response::new(body::full(content));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
