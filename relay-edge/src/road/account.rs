//! Phase 5: what it came to. Counted by a guard, so that however an exchange ends, it is counted once.
//!
//! One line per request goes to the log target `access`, with these fields and no others: `room` (hub, proxy, name,
//! other), `server.id` (names and proxy), `method`, `protocol` (h1, h2, h3), `status` (0: the viewer left before there was
//! one), `code` (where the edge answered itself), `bytes.in`, `bytes.out` (bodies), `first_byte_ms`, `duration_ms`,
//! `end` (whole, aborted). An upgraded connection is one request, status 101, counted to its end. No path, address, host or token.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use phlix_protocol::ids::ServerId;

use crate::body::{Body, BodyError};
use crate::metrics::{Metrics, Room};

/// Bytes of a request's body, counted where they pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(Arc<AtomicU64>);

impl Taken {
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// One request, from its head to its answer's end.
pub(crate) struct Account {
    metrics: Arc<Metrics>,
    room: Room,
    server: Option<ServerId>,
    method: Method,
    protocol: &'static str,
    start: Instant,
    first_byte: Option<Instant>,
    status: u16,
    code: &'static str,
    taken: Taken,
    given: u64,
    whole: bool,
    /// Told that the request is over: its connection's clocks.
    _visit: Option<Box<dyn Send + Sync>>,
}

impl Account {
    pub(crate) fn open(
        metrics: &Arc<Metrics>,
        method: &Method,
        protocol: &'static str,
        now: Instant,
        visit: Option<Box<dyn Send + Sync>>,
    ) -> Self {
        metrics.active.inc();
        Self {
            metrics: Arc::clone(metrics),
            room: Room::Other,
            server: None,
            method: method.clone(),
            protocol,
            start: now,
            first_byte: None,
            status: 0,
            code: "",
            taken: Taken::default(),
            given: 0,
            whole: false,
            _visit: visit,
        }
    }

    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    pub(crate) fn set_server(&mut self, server: ServerId) {
        self.server = Some(server);
    }

    /// The edge answered itself.
    pub(crate) fn refused(&mut self, code: &'static str) {
        self.code = code;
        self.metrics.refusals.with_label_values(&[code]).inc();
    }

    /// The counter of the request's body.
    pub(crate) fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// The connection was handed over: from here on it is counted by what moves.
    pub(crate) fn switched(&mut self, now: Instant) {
        self.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        self.first_byte = Some(now);
        self.metrics.first_byte.observe((now - self.start).as_secs_f64());
    }

    /// Bytes that went to the viewer.
    pub(crate) fn gave(&mut self, bytes: usize) {
        self.given += bytes as u64;
    }

    /// Both sides said that they have no more.
    pub(crate) fn ended(&mut self) {
        self.whole = true;
    }

    /// There is an answer: the account goes with its body.
    pub(crate) fn answer(mut self, response: Response<Body>, now: Instant) -> Response<Body> {
        self.status = response.status().as_u16();
        self.first_byte = Some(now);
        self.metrics.first_byte.observe((now - self.start).as_secs_f64());
        if response.body().is_end_stream() || self.method == Method::HEAD {
            self.whole = true;
        }
        response.map(|body| Accounted { body, account: self }.boxed_unsync())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let duration = self.start.elapsed();
        let bytes_in = self.taken.0.load(Ordering::Relaxed);
        let metrics = &self.metrics;
        metrics.active.dec();
        metrics.requests.count(self.room, self.status);
        metrics.bytes_in.inc_by(bytes_in);
        metrics.bytes_out.inc_by(self.given);
        metrics.duration.observe(duration.as_secs_f64());
        tracing::info!(
            target: "access",
            room = self.room.as_str(),
            server.id = self.server.map(tracing::field::display),
            method = %self.method,
            protocol = self.protocol,
            status = self.status,
            code = self.code,
            bytes.r#in = bytes_in,
            bytes.out = self.given,
            first_byte_ms = self.first_byte.map(|at| millis(at - self.start)),
            duration_ms = millis(duration),
            end = if self.whole { "whole" } else { "aborted" },
            "request"
        );
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Accounted {
    body: Body,
    account: Account,
}

impl http_body::Body for Accounted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.account.given += frame.data_ref().map_or(0, Bytes::len) as u64;
                this.account.whole = this.body.is_end_stream();
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "an answer's body was aborted");
            }
            Poll::Ready(None) => this.account.whole = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
