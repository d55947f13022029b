//! One stream: a request with its answer, or a raw channel.

use std::time::Instant;

use uuid::Uuid;

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::{Failure, WriteError};
use crate::legacy::http::ResponseHead;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) nature: Nature,
    /// How the server's direction ended, if it has.
    pub(super) answer: Option<Result<(), Failure>>,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// A reader, a writer was told to wait.
    pub(super) read_waits: bool,
    pub(super) write_waits: bool,
    /// The server knows of it.
    pub(super) told: bool,
    /// It waits for its turn to send.
    pub(super) ready: bool,
    /// Its queue reached the budget, and is not below half of it since.
    pub(super) full: bool,
    /// Nobody holds it.
    pub(super) released: bool,
}

#[derive(Debug)]
pub(super) enum Nature {
    Request {
        /// The method is HEAD.
        bodiless: bool,
        /// The head came.
        headed: bool,
        head: Option<ResponseHead>,
        expected: Expected,
    },
    Channel {
        client: Uuid,
        /// When something moved.
        active: Instant,
    },
}

/// What of a body is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Whatever comes is not the viewer's: to HEAD, and with 204 and 304.
    Nothing,
    /// As much as Content-Length promised, less what came.
    Exactly(u64),
    /// As much as the server said it would be, or more: that is no promise to the viewer.
    AtLeast(u64),
}

impl Nature {
    pub(super) fn request(bodiless: bool) -> Self {
        Self::Request { bodiless, headed: false, head: None, expected: Expected::Nothing }
    }
}

impl Expected {
    pub(super) fn of(head: &ResponseHead, bodiless: bool) -> Self {
        match head.content_length {
            _ if bodiless || matches!(head.status, 204 | 304) => Self::Nothing,
            Some(length) => Self::Exactly(length),
            None => Self::AtLeast(head.body_length.unwrap_or(0)),
        }
    }

    /// What is still to come after so many bytes; `None` when these are too many.
    pub(super) fn less(self, length: usize) -> Option<Self> {
        let length = length as u64;
        match self {
            Self::Nothing => Some(self),
            Self::Exactly(left) => left.checked_sub(length).map(Self::Exactly),
            Self::AtLeast(left) => Some(Self::AtLeast(left.saturating_sub(length))),
        }
    }

    /// Whether an end here is too early.
    pub(super) fn is_short(self) -> bool {
        matches!(self, Self::Exactly(1..) | Self::AtLeast(1..))
    }
}

impl Stream {
    pub(super) fn new(nature: Nature, outgoing: Outgoing) -> Self {
        Self {
            nature,
            answer: None,
            incoming: Incoming::default(),
            outgoing,
            read_waits: false,
            write_waits: false,
            told: false,
            ready: false,
            full: false,
            released: false,
        }
    }

    pub(super) fn may_write(&self) -> Result<(), WriteError> {
        match self.answer {
            Some(Ok(())) => Err(WriteError::Answered),
            Some(Err(_)) => Err(WriteError::Closed),
            None if self.released || !self.outgoing.is_open() => Err(WriteError::Closed),
            None => Ok(()),
        }
    }

    /// The head, once; what failed before it.
    pub(super) fn head(&mut self) -> Option<Result<ResponseHead, Failure>> {
        if let Nature::Request { head, .. } = &mut self.nature
            && let Some(head) = head.take()
        {
            return Some(Ok(head));
        }
        match self.answer {
            Some(Err(failure)) => Some(Err(failure)),
            Some(Ok(())) => Some(Err(Failure::NoHead)),
            None => None,
        }
    }

    /// Something moved.
    pub(super) fn touch(&mut self, now: Instant) {
        if let Nature::Channel { active, .. } = &mut self.nature {
            *active = now;
        }
    }
}
