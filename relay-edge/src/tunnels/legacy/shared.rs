//! What the driver of a tunnel and those who hold its streams share: one state behind a mutex that is never held across an
//! await. Who has to wait leaves a waker.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use phlix_protocol::legacy::handshake::Hello;
use phlix_protocol::legacy::tunnel::{Event, Read, StreamId, Tunnel as Machine};
use phlix_protocol::ws::CloseCode;
use tokio::time::Instant;

/// The state of one tunnel.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

#[derive(Debug)]
pub(super) struct State {
    pub(super) machine: Machine,
    /// Why the tunnel has ended.
    pub(super) end: Option<End>,
    /// The server said who it is, and waits for the answer.
    pub(super) hello: Option<Hello>,
    /// Nothing runs any more on a tunnel that drains, or its grace is over.
    drained: bool,
    /// As what a tunnel ends that drains.
    last: Option<End>,
    /// The driver sleeps.
    pub(super) driver: Option<Waker>,
    /// The socket takes nothing: what is to be sent can wait.
    pub(super) blocked: bool,
    /// The driver does not read, since viewers don't.
    pub(super) paused: bool,
    readers: HashMap<StreamId, Waker>,
    writers: HashMap<StreamId, Waker>,
    /// Answers of which the viewer has all, and END has not come: without this each would be cancelled. The oldest first.
    lingering: Vec<StreamId>,
}

/// Answers that may wait for their END. A server that owes more is told by CANCEL that nobody waits.
const MOST_LINGERING: usize = 32;

/// How a tunnel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// The word in logs and metrics, and in DISCONNECTED (legacy-relay-wire s.3.2).
    pub(crate) why: &'static str,
    /// What the server is told.
    pub(super) farewell: Farewell,
}

/// What goes out last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// A close frame.
    Code(CloseCode),
    /// A word as a text message, and no close frame.
    //= legacy-relay-wire s.1.3
    Text(&'static str),
    /// Nothing: the connection is gone.
    Nothing,
}

impl Farewell {
    /// A close frame of this code, which may be on the wire.
    //= legacy-relay-wire s.1.3
    pub(super) fn by_number(code: u16) -> Self {
        Self::Code(CloseCode::from_wire(code).unwrap_or(CloseCode::POLICY))
    }
}

impl Shared {
    pub(super) fn new(machine: Machine) -> Self {
        Self(Mutex::new(State {
            machine,
            end: None,
            hello: None,
            drained: false,
            last: None,
            driver: None,
            blocked: false,
            paused: false,
            readers: HashMap::new(),
            writers: HashMap::new(),
            lingering: Vec::new(),
        }))
    }

    /// Looks at the state.
    pub(super) fn see<R>(&self, deed: impl FnOnce(&State) -> R) -> R {
        deed(&self.lock())
    }

    /// Does something as a holder: the driver is woken if that left it something to do.
    pub(super) fn with<R>(&self, deed: impl FnOnce(&mut State) -> R) -> R {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let done = deed(&mut state);
        state.tell(&mut wakers);
        if state.wants_driver() {
            wakers.extend(state.driver.take());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    /// Does something as the driver: what happened is told to those who wait for it.
    pub(super) fn drive<R>(&self, deed: impl FnOnce(&mut State) -> R) -> R {
        let mut wakers = Vec::new();
        let mut state = self.lock();
        let done = deed(&mut state);
        state.tell(&mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    /// Ends the tunnel from this side. The first end counts.
    pub(super) fn close(&self, end: End) {
        let driver = self.drive(|state| {
            state.finish(end);
            state.driver.take()
        });
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Lets what runs finish, within a grace, and nothing new begin.
    pub(super) fn drain(&self, grace: Duration, end: End) {
        let now = Instant::now().into_std();
        let driver = self.drive(|state| {
            state.machine.drain(grace, now);
            state.last.get_or_insert(end);
            state.driver.take()
        });
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first end counts.
    pub(super) fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.machine.close(Instant::now().into_std());
        }
    }

    pub(super) fn wait_for_reader(&mut self, id: StreamId, waker: &Waker) {
        leave(&mut self.readers, id, waker);
    }

    pub(super) fn wait_for_writer(&mut self, id: StreamId, waker: &Waker) {
        leave(&mut self.writers, id, waker);
    }

    /// A stream's holder is gone.
    pub(super) fn release(&mut self, id: StreamId) {
        self.machine.release(id, Instant::now().into_std());
        self.readers.remove(&id);
        self.writers.remove(&id);
    }

    /// A stream's holder is gone, and needs nothing more of it.
    pub(super) fn linger(&mut self, id: StreamId) {
        self.readers.remove(&id);
        self.writers.remove(&id);
        if self.is_over(id) {
            return self.release(id);
        }
        if self.lingering.len() >= MOST_LINGERING {
            let oldest = self.lingering.remove(0);
            self.release(oldest);
        }
        self.lingering.push(id);
    }

    /// Whether nothing more is to come. Where there is, an event follows.
    fn is_over(&mut self, id: StreamId) -> bool {
        !matches!(self.machine.read(id, Instant::now().into_std()), Read::Blocked)
    }

    fn wants_driver(&self) -> bool {
        (!self.blocked && self.machine.wants_transmit()) || (self.paused && self.machine.wants_input())
    }

    /// Takes out the wakers of those whom events concern.
    fn tell(&mut self, wakers: &mut Vec<Waker>) {
        while let Some(event) = self.machine.next_event() {
            match event {
                Event::Hello(hello) => self.hello = Some(hello),
                Event::Readable(id) => match self.lingering.iter().position(|other| *other == id) {
                    Some(index) if self.is_over(id) => {
                        self.lingering.remove(index);
                        self.release(id);
                    }
                    Some(_) => {}
                    None => wakers.extend(self.readers.remove(&id)),
                },
                Event::Writable(id) => wakers.extend(self.writers.remove(&id)),
                Event::Drained => self.drained = true,
            }
        }
        if self.drained
            && let Some(last) = self.last.clone()
        {
            self.finish(last);
        }
        if self.end.is_some() {
            wakers.extend(std::mem::take(&mut self.readers).into_values());
            wakers.extend(std::mem::take(&mut self.writers).into_values());
        }
    }
}

fn leave(waiting: &mut HashMap<StreamId, Waker>, id: StreamId, waker: &Waker) {
    match waiting.get_mut(&id) {
        Some(known) => known.clone_from(waker),
        None => drop(waiting.insert(id, waker.clone())),
    }
}
