//! What the driver and the holders of streams share.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use phlix_protocol::native::close;
use phlix_protocol::native::mux::{Event, Mux, StreamId};
use tokio::sync::Notify;

use crate::end::End;

/// The state, and who waits for a change of the connection itself.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) mux: Mux,
    /// Why the connection has ended.
    pub(super) end: Option<End>,
    /// What the peer is to be told of it.
    pub(super) farewell: Option<Farewell>,
    /// The driver has let the socket go.
    pub(super) gone: bool,
    /// The driver sleeps and would like to know of something to send.
    pub(super) driver: Option<Waker>,
    /// The socket takes nothing: what is to be sent can wait.
    pub(super) blocked: bool,
    pub(super) waiting: Waiting,
}

/// The close frame that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Farewell {
    pub(super) code: u32,
    pub(super) reason: String,
}

/// Wakers of those who wait for a stream.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) readers: HashMap<StreamId, Waker>,
    pub(super) writers: HashMap<StreamId, Waker>,
    pub(super) sent: HashMap<StreamId, Vec<Waker>>,
    /// Those who wait for the connection's end alone.
    pub(super) ends: Vec<Waker>,
    pub(super) control_reader: Option<Waker>,
    pub(super) control_writer: Option<Waker>,
}

impl Shared {
    pub(super) fn new(mux: Mux) -> Self {
        let state = State {
            mux,
            end: None,
            farewell: None,
            gone: false,
            driver: None,
            blocked: false,
            waiting: Waiting::default(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Does something to the state, and wakes the driver if that left something to send.
    pub(super) fn with<R>(&self, deed: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let done = deed(&mut state);
        let driver = if !state.blocked && state.mux.wants_transmit() { state.driver.take() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        done
    }

    /// As the driver: what happened is told to those who wait for it.
    pub(super) fn drive<R>(&self, deed: impl FnOnce(&mut State) -> R) -> R {
        let mut wakers = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let done = deed(&mut state);
        let changed = state.tell(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        if changed {
            self.changed.notify_waiters();
        }
        done
    }

    /// Waits for something about the connection.
    pub(super) async fn when<R>(&self, mut what: impl FnMut(&mut State) -> Option<R>) -> R {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = self.with(&mut what) {
                return found;
            }
            changed.await;
        }
    }

    /// Ends the connection from this side. The first end counts.
    pub(super) fn close(&self, code: u32, reason: &str) {
        let driver = self.drive(|state| {
            state.finish(End::Local, Some(Farewell { code, reason: reason.to_owned() }));
            state.driver.take()
        });
        self.changed.notify_waiters();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// The driver has let the socket go.
    pub(super) fn gone(&self) {
        self.drive(|state| {
            state.finish(End::Lost("the connection was dropped".to_owned()), None);
            state.gone = true;
        });
        self.changed.notify_waiters();
    }

    /// Ends the connection, as the driver.
    pub(super) fn end(&self, end: End, farewell: Option<Farewell>) {
        self.drive(|state| state.finish(end, farewell));
        self.changed.notify_waiters();
    }
}

impl State {
    fn finish(&mut self, end: End, farewell: Option<Farewell>) {
        if self.end.is_none() {
            self.end = Some(end);
            self.farewell = farewell;
        }
    }

    /// Takes out the wakers of those whom the mux's events concern; `true` when the connection itself has news.
    fn tell(&mut self, wakers: &mut Vec<Waker>) -> bool {
        let waiting = &mut self.waiting;
        if self.end.is_some() {
            let all = std::mem::take(waiting);
            wakers.extend(all.readers.into_values().chain(all.writers.into_values()));
            wakers.extend(all.sent.into_values().flatten().chain(all.ends));
            wakers.extend(all.control_reader.into_iter().chain(all.control_writer));
        }
        let mut news = false;
        while let Some(event) = self.mux.poll() {
            match event {
                Event::Opened => news = true,
                Event::Readable(id) => wakers.extend(waiting.readers.remove(&id)),
                Event::Writable(id) => wakers.extend(waiting.writers.remove(&id)),
                Event::Sent(id) => wakers.extend(waiting.sent.remove(&id).into_iter().flatten()),
                Event::ControlReadable => wakers.extend(waiting.control_reader.take()),
                Event::ControlWritable => wakers.extend(waiting.control_writer.take()),
            }
        }
        news
    }
}

/// Held by each holder; the last one closes the connection.
#[derive(Debug)]
pub(super) struct Handle(Arc<Shared>);

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close(close::BYE, "");
    }
}
