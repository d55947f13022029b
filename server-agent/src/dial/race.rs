//! The first connection to an edge wins.
//!
//! QUIC begins, WebSocket follows after a moment; addresses of one transport begin one after the other: one that swallows
//! packets must not hold up the next. The race ends at a connected transport, and those that lose are dropped before
//! anything is said on them. A transport whose data path died, or on which the edge could not be understood, gives the
//! other one a long start for a while.

use std::pin::Pin;
use std::time::Duration;

use phlix_link::{Link, Transport};
use phlix_protocol::token::EdgeEntry;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::websocket::Way;
use super::{DialError, quic, reach, websocket};
use crate::config;
use crate::shared::Shared;

/// Between two addresses of one edge.
const STAGGER: Duration = Duration::from_millis(300);

/// So much later than QUIC does WebSocket begin.
const HEAD_START: Duration = Duration::from_millis(300);

/// So much later than the other does a transport begin that failed: a slow TLS handshake through a proxy has passed.
const LONG_START: Duration = Duration::from_secs(3);

/// So long is a failure remembered.
const MEMORY: Duration = Duration::from_secs(60);

type Attempt = Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send>>;

/// What happened on the transports so far.
#[derive(Debug, Default)]
pub(super) struct Form {
    failed: Option<(Transport, Instant)>,
}

impl Form {
    /// A connection was there, and was of no use: bytes did not arrive on it.
    pub(super) fn failed(&mut self, transport: Transport, now: Instant) {
        self.failed = Some((transport, now));
    }

    /// When each transport begins.
    fn starts(&self, transports: config::Transport, now: Instant) -> Vec<(Transport, Duration)> {
        match transports {
            config::Transport::Quic => vec![(Transport::Quic, Duration::ZERO)],
            config::Transport::WebSocket => vec![(Transport::WebSocket, Duration::ZERO)],
            config::Transport::Auto => match self.failed {
                Some((failed, at)) if now.saturating_duration_since(at) < MEMORY => match failed {
                    Transport::Quic => {
                        vec![(Transport::WebSocket, Duration::ZERO), (Transport::Quic, LONG_START)]
                    }
                    Transport::WebSocket => {
                        vec![(Transport::Quic, Duration::ZERO), (Transport::WebSocket, LONG_START)]
                    }
                },
                _ => vec![(Transport::Quic, Duration::ZERO), (Transport::WebSocket, HEAD_START)],
            },
        }
    }
}

/// Connects to an edge, by whichever transport and address answers first.
pub(super) async fn connect(shared: &Shared, edge: &EdgeEntry, form: &Form) -> Result<Link, DialError> {
    let limit = shared.config.timings.dial;
    let name = reach::name_of(edge);
    let mut attempts: Vec<(Duration, Transport, Attempt)> = Vec::new();
    for (transport, start) in form.starts(shared.config.transport, Instant::now()) {
        let tls = reach::tls(shared, edge)?;
        let mut enter = |index: usize, attempt: Attempt| {
            let later = STAGGER * u32::try_from(index).unwrap_or(u32::MAX);
            attempts.push((start + later, transport, attempt));
        };
        match transport {
            Transport::Quic => {
                let config = quic::config(tls)?;
                // A name that only the proxy can resolve is no address for QUIC.
                for (index, address) in reach::addresses(edge).await.unwrap_or_default().into_iter().enumerate() {
                    enter(index, Box::pin(quic::dial(config.clone(), address, name.to_owned(), limit)));
                }
            }
            Transport::WebSocket => {
                let config = websocket::config(tls);
                for (index, way) in ways(shared, edge).await.into_iter().enumerate() {
                    let dial = websocket::dial(config.clone(), way, name.to_owned(), edge.port, limit);
                    enter(index, Box::pin(dial));
                }
            }
        }
    }
    if attempts.is_empty() {
        return Err(edge.addresses.first().map_or(DialError::NoAddress, |host| DialError::Resolve(host.clone())));
    }
    attempts.sort_by_key(|(start, ..)| *start);
    first_of(attempts).await
}

/// Through the proxy by name, else to each address.
async fn ways(shared: &Shared, edge: &EdgeEntry) -> Vec<Way> {
    let proxies = &shared.config.proxies;
    let mut ways: Vec<Way> = reach::hosts(edge)
        .filter_map(|host| Some(Way::Through(proxies.towards(host)?.clone(), host.to_owned(), edge.port)))
        .collect();
    let direct = EdgeEntry {
        addresses: reach::hosts(edge).filter(|host| proxies.towards(host).is_none()).map(str::to_owned).collect(),
        ..edge.clone()
    };
    ways.extend(reach::addresses(&direct).await.unwrap_or_default().into_iter().map(Way::Direct));
    ways
}

/// Starts each attempt when its time has come, or when nothing else is left to hope for.
async fn first_of(attempts: Vec<(Duration, Transport, Attempt)>) -> Result<Link, DialError> {
    let began = Instant::now();
    let mut waiting = attempts.into_iter().peekable();
    let mut running = JoinSet::new();
    let mut lost = Lost::default();
    loop {
        let due = match waiting.peek() {
            None if running.is_empty() => return Err(lost.sum()),
            None => None,
            Some((delay, ..)) => Some(if running.is_empty() { began } else { began + *delay }),
        };
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => match ended {
                Ok((_, Ok(link))) => return Ok(link),
                Ok((transport, Err(error))) => lost.add(transport, error),
                Err(_) => {}
            },
            () = tokio::time::sleep_until(due.unwrap_or(began)), if due.is_some() => {
                if let Some((_, transport, attempt)) = waiting.next() {
                    running.spawn(async move { (transport, attempt.await) });
                }
            }
        }
    }
}

/// Why attempts failed: the last reason of each transport.
#[derive(Default)]
struct Lost {
    reasons: Vec<(Transport, DialError)>,
}

impl Lost {
    fn add(&mut self, transport: Transport, error: DialError) {
        tracing::debug!(%transport, %error, "an attempt failed");
        self.reasons.retain(|(other, _)| *other != transport);
        self.reasons.push((transport, error));
    }

    fn sum(mut self) -> DialError {
        if self.reasons.len() > 1 {
            let all = self.reasons.iter().map(|(transport, error)| format!("{transport}: {error}"));
            return DialError::Nowhere(all.collect::<Vec<_>>().join("; "));
        }
        self.reasons.pop().map_or(DialError::NoAddress, |(_, error)| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_that_failed_lets_the_other_begin_for_a_while() {
        let start = Instant::now();
        let mut form = Form::default();
        let first = |form: &Form, now| form.starts(config::Transport::Auto, now)[0].0;
        assert_eq!(first(&form, start), Transport::Quic);
        form.failed(Transport::Quic, start);
        assert_eq!(first(&form, start), Transport::WebSocket);
        form.failed(Transport::WebSocket, start + Duration::from_secs(1));
        assert_eq!(first(&form, start + Duration::from_secs(2)), Transport::Quic);
        form.failed(Transport::Quic, start);
        assert_eq!(first(&form, start + MEMORY), Transport::Quic);
    }

    #[test]
    fn a_pinned_transport_is_the_only_one() {
        let mut form = Form::default();
        form.failed(Transport::WebSocket, Instant::now());
        let starts = form.starts(config::Transport::WebSocket, Instant::now());
        assert_eq!(starts, [(Transport::WebSocket, Duration::ZERO)]);
    }
}
