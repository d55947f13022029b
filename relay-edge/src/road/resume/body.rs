//! An answer's body that outlives its tunnel.
//!
//! It wraps the body that comes down a tunnel and counts what it hands on. When the tunnel dies, the rest is asked for on
//! another one, inside the poll of whoever reads: no task, and a viewer who leaves ends it. What the dead tunnel still had
//! in a buffer was not handed on and comes again; nothing that was handed on does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use phlix_protocol::token::TunnelTicket;

use super::super::live::Entry;
use super::again::{Exchange, Lost, died};
use super::rules::{Differs, Promise};
use crate::body::BodyError;
use crate::tunnels::{LegBody, LegError, Tunnel};

/// The body.
pub(crate) struct Lasting(Stage);

enum Stage {
    /// Ends when its tunnel does.
    Plain(LegBody),
    Flowing(LegBody, Box<Rest>),
    /// The tunnel has died; so many bytes are still promised.
    Waiting(GoingOn, u64),
    Over,
}

type GoingOn = Pin<Box<dyn Future<Output = Result<(LegBody, Box<Rest>), Lost>> + Send>>;

/// What asking for the rest takes.
struct Rest {
    exchange: Exchange,
    entry: Arc<Entry>,
    promise: Promise,
    /// The ticket of the tunnel that the answer began on.
    home: Arc<TunnelTicket>,
    tunnel: Arc<Tunnel>,
    delivered: u64,
}

impl Lasting {
    /// A body that ends with its tunnel.
    pub(crate) fn plain(body: LegBody) -> Self {
        Self(Stage::Plain(body))
    }

    /// A body that goes on after its tunnel, where its answer's head allows that. `tunnel` is the one it comes by.
    pub(crate) fn new(
        body: LegBody,
        head: &http::response::Parts,
        exchange: Exchange,
        entry: &Arc<Entry>,
        tunnel: Arc<Tunnel>,
    ) -> Self {
        let length = body.size_hint().exact();
        match Promise::of(&exchange.head.method, head.status, &head.headers, length) {
            None => Self::plain(body),
            Some(promise) => {
                let (entry, home) = (Arc::clone(entry), tunnel.ticket());
                Self(Stage::Flowing(body, Box::new(Rest { exchange, entry, promise, home, tunnel, delivered: 0 })))
            }
        }
    }
}

impl Rest {
    fn missing(&self) -> u64 {
        self.promise.length().saturating_sub(self.delivered)
    }

    /// Brings the body of the rest, or why there is none.
    async fn go_on(mut self: Box<Self>) -> Result<(LegBody, Box<Self>), Lost> {
        let since = Instant::now();
        let rest = self.ask().await;
        let outcome = rest.as_ref().map_or_else(Lost::word, |_| "resumed");
        self.exchange.means.metrics.resumes.with_label_values(&["body", outcome]).inc();
        let (server, offset) = (self.exchange.server, self.promise.offset(self.delivered));
        let waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        match rest {
            Ok(body) => {
                tracing::info!(server.id = %server, offset, waited_ms, "an answer is resumed: its tunnel died");
                Ok((body, self))
            }
            Err(error) => {
                tracing::info!(server.id = %server, offset, waited_ms, %error, "an answer is aborted: its tunnel died");
                Err(error)
            }
        }
    }

    async fn ask(&mut self) -> Result<LegBody, Lost> {
        loop {
            let deadline = died(&self.tunnel) + self.exchange.means.resume;
            let tunnel = self.exchange.elsewhere(&self.home, deadline).await?;
            if !is_same_home(&self.home, &tunnel.ticket()) {
                return Err(Lost::AnotherHome);
            }
            self.tunnel = tunnel;
            let mut head = self.exchange.head.clone();
            self.promise.ask(&mut head.headers, self.delivered);
            let (head, body) = match self.exchange.say(&self.tunnel, head).await {
                Ok(answer) => answer.into_parts(),
                Err(LegError::TunnelLost) => continue,
                Err(LegError::Cut) => return Err(Lost::Cut),
                Err(error) => return Err(Lost::Failed(error)),
            };
            let length = body.size_hint().exact();
            self.promise
                .is_continued_by(self.delivered, head.status, &head.headers, length)
                .map_err(|differs: Differs| Lost::Differs(differs))?;
            // Whoever cuts from here on finds this flow; who cut before has left word.
            self.entry.set_flow(body.flow());
            if self.entry.is_cut() {
                return Err(Lost::Cut);
            }
            return Ok(body);
        }
    }
}

/// Whether two tunnels end at the same server with the same key, of the same generation.
fn is_same_home(one: &TunnelTicket, other: &TunnelTicket) -> bool {
    one.server_id == other.server_id && one.cnf == other.cnf && one.generation == other.generation
}

impl http_body::Body for Lasting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let stage = &mut self.0;
        loop {
            match stage {
                Stage::Plain(body) => return Pin::new(body).poll_frame(cx),
                Stage::Flowing(body, rest) => {
                    let polled = Pin::new(body).poll_frame(cx);
                    match &polled {
                        Poll::Ready(Some(Ok(frame))) => {
                            rest.delivered += frame.data_ref().map_or(0, Bytes::len) as u64;
                            return polled;
                        }
                        Poll::Ready(Some(Err(BodyError::TunnelLost))) => {}
                        _ => return polled,
                    }
                    let Stage::Flowing(_, rest) = std::mem::replace(stage, Stage::Over) else {
                        return Poll::Ready(None);
                    };
                    let missing = rest.missing();
                    if missing == 0 {
                        return Poll::Ready(None);
                    }
                    *stage = Stage::Waiting(Box::pin(rest.go_on()), missing);
                }
                Stage::Waiting(going_on, _) => match std::task::ready!(going_on.as_mut().poll(cx)) {
                    Ok((body, rest)) => *stage = Stage::Flowing(body, rest),
                    Err(lost) => {
                        *stage = Stage::Over;
                        let error = if matches!(lost, Lost::Cut) { BodyError::Cut } else { BodyError::TunnelLost };
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Stage::Plain(body) => body.is_end_stream(),
            // Not over while something is missing, whatever became of the tunnel.
            Stage::Flowing(body, rest) => rest.missing() == 0 && body.is_end_stream(),
            Stage::Waiting(..) | Stage::Over => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Stage::Plain(body) | Stage::Flowing(body, _) => body.size_hint(),
            Stage::Waiting(_, missing) => SizeHint::with_exact(*missing),
            Stage::Over => SizeHint::default(),
        }
    }
}
