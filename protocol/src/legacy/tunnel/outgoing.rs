//! Bytes that wait to be sent to the server: of a request, or of a channel.

use std::collections::VecDeque;

use bytes::Bytes;

#[derive(Debug)]
pub(super) struct Outgoing {
    /// A request's first frame: the envelope, or the tagged head.
    first: Option<Bytes>,
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    pub(super) queued: usize,
    /// All that were ever put there.
    pub(super) total: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// An end is to be sent after what is queued.
    Finishing,
    /// All is sent, or void.
    Finished,
}

/// What the next frame is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    First(Bytes),
    /// So many of the queued bytes.
    Body(usize),
    End,
}

impl Outgoing {
    fn new(first: Option<Bytes>, state: State) -> Self {
        Self { first, queue: VecDeque::new(), queued: 0, total: 0, state }
    }

    /// A request in one frame.
    pub(super) fn envelope(payload: Bytes) -> Self {
        Self::new(Some(payload), State::Finished)
    }

    /// A request whose body is all there and too big for one frame.
    pub(super) fn whole(head: Bytes, body: Bytes) -> Self {
        let mut outgoing = Self::new(Some(head), State::Finishing);
        outgoing.push(body);
        outgoing
    }

    /// A request whose body is to come.
    pub(super) fn chunked(head: Bytes) -> Self {
        Self::new(Some(head), State::Open)
    }

    pub(super) fn channel() -> Self {
        Self::new(None, State::Open)
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether nothing is left to be sent or written.
    pub(super) fn is_finished(&self) -> bool {
        self.state == State::Finished && self.first.is_none()
    }

    pub(super) fn finish(&mut self) {
        self.state = State::Finishing;
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.total += bytes.len() as u64;
            self.queue.push_back(bytes);
        }
    }

    pub(super) fn cut(&mut self) {
        *self = Self { total: self.total, ..Self::new(None, State::Finished) };
    }

    /// Whether there is a next frame.
    pub(super) fn wants(&self) -> bool {
        self.first.is_some() || self.queued > 0 || self.state == State::Finishing
    }

    /// The next frame, whose body has at most `most` bytes. An end is given once.
    pub(super) fn next(&mut self, most: usize) -> Option<Next> {
        if let Some(first) = self.first.take() {
            return Some(Next::First(first));
        }
        if self.queued > 0 {
            return Some(Next::Body(self.queued.min(most)));
        }
        if self.state == State::Finishing {
            self.state = State::Finished;
            return Some(Next::End);
        }
        None
    }

    /// Takes up to `length` queued bytes as one slice; fewer where a slice ends.
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        let Some(front) = self.queue.front_mut() else { return Bytes::new() };
        let piece =
            if front.len() > length { front.split_to(length) } else { self.queue.pop_front().unwrap_or_default() };
        self.queued -= piece.len();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        piece
    }
}
