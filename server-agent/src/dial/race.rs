//! The first connection to an edge wins.
//!
//! Attempts begin one after the other, each a moment after the one before: one that swallows packets must not hold up the
//! next. Those that lose are dropped before anything is said on them.

use std::pin::Pin;
use std::time::Duration;

use phlix_link::Link;
use phlix_protocol::token::EdgeEntry;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{DialError, quic, reach};
use crate::shared::Shared;

/// Between two addresses of one edge.
const STAGGER: Duration = Duration::from_millis(300);

type Attempt = Pin<Box<dyn Future<Output = Result<Link, DialError>> + Send>>;

/// Connects to an edge, by whichever of its addresses answers first.
pub(super) async fn connect(shared: &Shared, edge: &EdgeEntry) -> Result<Link, DialError> {
    let config = quic::config(reach::tls(shared, edge)?)?;
    let limit = shared.config.timings.dial;
    let name = reach::name_of(edge);
    let attempts = reach::addresses(edge).await?.into_iter().enumerate().map(|(index, address)| {
        let attempt: Attempt = Box::pin(quic::dial(config.clone(), address, name.to_owned(), limit));
        (STAGGER * u32::try_from(index).unwrap_or(u32::MAX), attempt)
    });
    first_of(attempts.collect()).await
}

/// Starts each attempt when its time has come, or when nothing else is left to hope for.
async fn first_of(attempts: Vec<(Duration, Attempt)>) -> Result<Link, DialError> {
    let began = Instant::now();
    let mut waiting = attempts.into_iter().peekable();
    let mut running = JoinSet::new();
    let mut last = DialError::NoAddress;
    loop {
        if running.is_empty() {
            match waiting.next() {
                Some((_, attempt)) => drop(running.spawn(attempt)),
                None => return Err(last),
            }
        }
        let due = waiting.peek().map(|(delay, _)| began + *delay);
        tokio::select! {
            Some(ended) = running.join_next() => match ended {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            },
            () = tokio::time::sleep_until(due.unwrap_or(began)), if due.is_some() => {
                if let Some((_, attempt)) = waiting.next() {
                    drop(running.spawn(attempt));
                }
            }
        }
    }
}
