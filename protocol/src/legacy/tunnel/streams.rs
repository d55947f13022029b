//! Requests and raw channels: how they begin, who writes and reads, how they end.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;

use super::outgoing::Outgoing;
use super::stream::{Nature, Stream};
use super::transmit::Control;
use super::types::FIRST_REQUEST;
use super::{Event, Failure, OpenError, Read, RequestBody, Stage, StreamId, Tunnel, WriteError};
use crate::legacy::channel;
use crate::legacy::http::{EncodedHead, MAX_REQUEST_BODY, ResponseHead};

/// Bytes that each writer may have queued, however many there are.
const LEAST_QUEUED: usize = 64 * 1024;

impl Tunnel {
    /// Asks for something. The stream must be [`release`](Self::release)d, however it ends.
    pub fn request(&mut self, head: &EncodedHead, body: RequestBody, now: Instant) -> Result<StreamId, OpenError> {
        self.may_open()?;
        if self.streams.len() - self.channels >= self.config.max_requests {
            return Err(OpenError::TooMany);
        }
        let length = match &body {
            RequestBody::Whole(bytes) => Some(bytes.len() as u64),
            RequestBody::Stream { length } => *length,
        };
        if length.is_some_and(|length| length > MAX_REQUEST_BODY) {
            return Err(OpenError::TooLong);
        }
        let outgoing = match body {
            RequestBody::Whole(bytes) => match head.envelope(&bytes) {
                Some(envelope) => Outgoing::envelope(envelope),
                None => Outgoing::whole(head.chunk(length), bytes),
            },
            RequestBody::Stream { .. } => Outgoing::chunked(head.chunk(length)),
        };
        self.uploading += outgoing.queued;
        self.writers += usize::from(outgoing.queued > 0);
        let id = self.next_request();
        self.insert(id, Stream::new(Nature::request(head.bodiless()), outgoing), now);
        self.enqueue(id);
        Ok(id)
    }

    /// Opens a raw channel for a client. It must be [`release`](Self::release)d, however it ends.
    pub fn connect(&mut self, client: Uuid, session: &str, now: Instant) -> Result<StreamId, OpenError> {
        self.may_open()?;
        if self.channels >= self.config.max_channels || self.next_channel >= FIRST_REQUEST - 1 {
            return Err(OpenError::TooMany);
        }
        let id = StreamId(self.next_channel);
        self.next_channel += 1;
        self.channels += 1;
        self.insert(id, Stream::new(Nature::Channel { client, active: now }, Outgoing::channel()), now);
        self.control.push_back(Control::Connect(id, channel::client_connect(client, session)));
        self.channels_at.get_or_insert(now + self.config.channel_idle);
        Ok(id)
    }

    /// Queues as much of `bytes` as there is room for and takes it off. When that is nothing, [`Event::Writable`] follows.
    pub fn write(&mut self, id: StreamId, bytes: &mut Bytes, now: Instant) -> Result<usize, WriteError> {
        let most = self.most_queued();
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        stream.may_write()?;
        let length = most.saturating_sub(stream.outgoing.queued).min(bytes.len());
        if length == 0 {
            stream.write_waits = !bytes.is_empty();
            return Ok(0);
        }
        if id.is_request() && stream.outgoing.total + length as u64 > MAX_REQUEST_BODY {
            return Err(WriteError::TooLong);
        }
        self.writers += usize::from(stream.outgoing.queued == 0);
        self.uploading += length;
        stream.outgoing.push(bytes.split_to(length));
        stream.touch(now);
        self.enqueue(id);
        Ok(length)
    }

    /// The request's body ends with what was written. A channel has no such end.
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        stream.may_write()?;
        if id.is_request() {
            stream.outgoing.finish();
            self.enqueue(id);
        }
        Ok(())
    }

    /// The answer's head, once. When there is none yet, [`Event::Readable`] follows.
    pub fn head(&mut self, id: StreamId) -> Option<Result<ResponseHead, Failure>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Some(Err(Failure::Lost)) };
        let head = stream.head();
        stream.read_waits |= head.is_none();
        head
    }

    /// The next bytes of the answer, or of the channel.
    pub fn read(&mut self, id: StreamId, now: Instant) -> Read {
        let Some(stream) = self.streams.get_mut(&id) else { return Read::Failed(Failure::Lost) };
        let pinned = stream.incoming.pins();
        if let Some(bytes) = stream.incoming.take() {
            stream.touch(now);
            self.took(id, bytes.len(), pinned, now);
            return Read::Data(bytes);
        }
        match stream.answer {
            None => {
                stream.read_waits = true;
                Read::Blocked
            }
            Some(Ok(())) => Read::End,
            Some(Err(failure)) => Read::Failed(failure),
        }
    }

    /// Nobody holds this stream any more. The server is told where it does not know that it ended; what a channel's client
    /// had written goes before.
    pub fn release(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.released {
            return;
        }
        stream.released = true;
        if stream.told && stream.answer.is_none() && !id.is_request() && stream.outgoing.queued > 0 {
            stream.outgoing.finish();
            self.close_answer(id, Ok(()), now);
            self.forget_incoming(id, now);
            return;
        }
        self.end(id, Ok(()), true, now);
        self.forget_incoming(id, now);
        self.remove(id);
        self.check_drained();
    }

    pub(super) fn may_open(&self) -> Result<(), OpenError> {
        match self.stage {
            Stage::Open => Ok(()),
            Stage::Draining { .. } => Err(OpenError::Draining),
            Stage::Hello { .. } | Stage::Verifying { .. } | Stage::Closed => Err(OpenError::NotOpen),
        }
    }

    /// The next id of a request that is not in flight; there are more ids than requests.
    pub(super) fn next_request(&mut self) -> StreamId {
        loop {
            let id = StreamId(self.next_request);
            self.next_request = self.next_request.checked_add(1).unwrap_or_else(|| {
                self.wrapped = true;
                FIRST_REQUEST
            });
            if !self.streams.contains_key(&id) {
                return id;
            }
        }
    }

    /// Whether this id was given out before.
    pub(super) fn was_used(&self, id: StreamId) -> bool {
        match id.0 {
            FIRST_REQUEST.. => self.wrapped || id.0 < self.next_request,
            _ => (1..self.next_channel).contains(&id.0),
        }
    }

    pub(super) fn most_queued(&self) -> usize {
        (self.config.upload_total / self.writers.max(1)).max(LEAST_QUEUED).min(self.config.upload_queue)
    }

    pub(super) fn insert(&mut self, id: StreamId, stream: Stream, now: Instant) {
        self.streams.insert(id, stream);
        self.opened(now);
    }

    /// The stream hears no more from the server. `tell` it so where it may not know.
    pub(super) fn end(&mut self, id: StreamId, result: Result<(), Failure>, tell: bool, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.answer.is_some() {
            return;
        }
        let told = stream.told;
        let client = match stream.nature {
            Nature::Channel { client, .. } => Some(client),
            Nature::Request { .. } => None,
        };
        self.cut_outgoing(id);
        match client {
            _ if told && tell => self.control.push_back(match client {
                Some(client) => Control::Disconnect(id, client),
                None => Control::Cancel(id),
            }),
            Some(_) if !told => self.control.retain(|control| !control.is_connect(id)),
            _ => {}
        }
        self.close_answer(id, result, now);
        self.check_drained();
    }

    /// What was not sent is void.
    pub(super) fn cut_outgoing(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.uploading -= stream.outgoing.queued;
        self.writers -= usize::from(stream.outgoing.queued > 0);
        stream.outgoing.cut();
        if std::mem::take(&mut stream.ready) {
            self.ready.retain(|other| *other != id);
        }
        if std::mem::take(&mut stream.write_waits) {
            self.events.push_back(Event::Writable(id));
        }
    }

    pub(super) fn close_answer(&mut self, id: StreamId, result: Result<(), Failure>, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.answer = Some(result);
        if std::mem::take(&mut stream.read_waits) {
            self.events.push_back(Event::Readable(id));
        }
        self.not_receiving(id, now);
    }

    pub(super) fn remove(&mut self, id: StreamId) {
        if self.streams.remove(&id).is_some() {
            self.channels -= usize::from(!id.is_request());
        }
        if self.streams.is_empty() {
            self.streams = HashMap::new();
            self.ready = VecDeque::new();
        }
    }
}
