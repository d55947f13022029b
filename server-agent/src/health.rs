//! Whether the media server takes connections.
//!
//! Each stream's connection tells; when no viewer came for a while, a connection without a request does.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::event::Event;
use crate::serve::origin;
use crate::shared::Shared;

/// Between two looks at an origin that is down.
const LOOK_WHILE_DOWN: Duration = Duration::from_secs(2);

/// What is known of the origin.
pub(crate) struct OriginHealth {
    up: watch::Sender<bool>,
    /// A connection was tried since the last look.
    tried: AtomicBool,
}

impl OriginHealth {
    /// Up until the first connection says otherwise.
    pub(crate) fn new() -> Self {
        Self { up: watch::Sender::new(true), tried: AtomicBool::new(false) }
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Completes on changes.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Notes how a connection went; tells of changes.
    pub(crate) fn note(&self, shared: &Shared, outcome: Result<(), &io::Error>) {
        self.tried.store(true, Ordering::Relaxed);
        let up = outcome.is_ok();
        if self.up.send_if_modified(|known| std::mem::replace(known, up) != up) {
            shared.tell(match outcome {
                Ok(()) => Event::OriginUp,
                Err(error) => Event::OriginDown { reason: error.to_string() },
            });
        }
        shared.board.change(|status| status.origin_up = up);
    }
}

/// Looks after the origin as long as the agent runs.
pub(crate) async fn watch_origin(shared: &Shared) {
    loop {
        if !shared.origin.tried.swap(false, Ordering::Relaxed) || !shared.origin.is_up() {
            let outcome = origin::look(shared).await;
            shared.origin.note(
                shared,
                match &outcome {
                    Ok(()) => Ok(()),
                    Err(error) => Err(error),
                },
            );
            shared.origin.tried.store(false, Ordering::Relaxed);
        }
        let wait = if shared.origin.is_up() { shared.config.timings.report } else { LOOK_WHILE_DOWN };
        tokio::time::sleep(wait).await;
    }
}
