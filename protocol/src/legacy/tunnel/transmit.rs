//! Bytes out: which frames go next.

use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;

use super::outgoing::Next;
use super::stream::Nature;
use super::{Batch, Event, Stage, StreamId, Tunnel};
use crate::legacy::channel;
use crate::legacy::frame::{Kind, MAX_PAYLOAD};
use crate::legacy::http::{BODY, END, MAX_BODY};

/// Room for which a writer is woken while others of its bytes wait, bytes.
const WORTH_WAKING: usize = 16 * 1024;

/// Frames that go before those of streams.
#[derive(Debug)]
pub(super) enum Control {
    Cancel(StreamId),
    Connect(StreamId, Bytes),
    Disconnect(StreamId, Uuid),
}

impl Control {
    pub(super) fn is_connect(&self, id: StreamId) -> bool {
        matches!(self, Self::Connect(other, _) if *other == id)
    }
}

impl Tunnel {
    /// Adds WebSocket messages to a batch until it holds `budget` bytes or there are no more; the last may go 64 KiB beyond.
    /// `false` when there was nothing to say.
    ///
    /// The order: the answer to HELLO; WebSocket ping; HEARTBEAT; the other control frames; streams in turns of a frame.
    //= legacy-relay-wire s.4: control frames (06, 12, 03, 04) go before stream frames (10, 05)
    pub fn transmit(&mut self, budget: usize, now: Instant, batch: &mut Batch) -> bool {
        if !matches!(self.stage, Stage::Open | Stage::Draining { .. }) {
            return false;
        }
        let before = batch.len();
        if let Some(ack) = self.ack.take() {
            batch.text(&ack);
        }
        if std::mem::take(&mut self.ping_due) {
            batch.ping();
        }
        if std::mem::take(&mut self.heartbeat_due) {
            self.frame(batch, StreamId(0), Kind::Heartbeat, None, 0);
        }
        while batch.len() < budget
            && let Some(control) = self.control.pop_front()
        {
            self.send_control(control, batch);
        }
        while batch.len() < budget
            && let Some(id) = self.ready.pop_front()
        {
            self.send_next(id, batch);
        }
        let said = batch.len() > before;
        if said {
            self.spoke = now;
        }
        said
    }

    /// Whether [`transmit`](Self::transmit) has something to say.
    pub fn wants_transmit(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Draining { .. })
            && (self.ack.is_some()
                || self.ping_due
                || self.heartbeat_due
                || !self.control.is_empty()
                || !self.ready.is_empty())
    }

    /// Gives the stream its turn if it has something to say.
    pub(super) fn enqueue(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.ready
            && stream.outgoing.wants()
            && (stream.told || id.is_request())
        {
            stream.ready = true;
            self.ready.push_back(id);
        }
    }

    fn frame(&mut self, batch: &mut Batch, id: StreamId, kind: Kind, tag: Option<u8>, length: usize) {
        self.counts.frames_out += 1;
        batch.head(id.0, kind, tag, length);
    }

    fn send_control(&mut self, control: Control, batch: &mut Batch) {
        let (id, kind, payload) = match control {
            Control::Cancel(id) => (id, Kind::HttpCancel, Bytes::new()),
            Control::Connect(id, payload) => (id, Kind::ClientConnect, payload),
            Control::Disconnect(id, client) => (id, Kind::ClientDisconnect, channel::client_disconnect(client)),
        };
        self.frame(batch, id, kind, None, payload.len());
        batch.payload(payload);
        if kind == Kind::ClientConnect
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.told = true;
            self.enqueue(id);
        }
    }

    /// One frame of a stream.
    fn send_next(&mut self, id: StreamId, batch: &mut Batch) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.ready = false;
        stream.told = true;
        let (kind, tag, most) =
            if id.is_request() { (Kind::HttpRequest, Some(BODY), MAX_BODY) } else { (Kind::Data, None, MAX_PAYLOAD) };
        match stream.outgoing.next(most) {
            Some(Next::First(payload)) => {
                self.frame(batch, id, kind, None, payload.len());
                batch.payload(payload);
            }
            Some(Next::Body(length)) => {
                self.frame(batch, id, kind, tag, length);
                self.send_body(id, length, batch);
            }
            Some(Next::End) if id.is_request() => self.frame(batch, id, kind, Some(END), 0),
            // A channel whose client is gone, after its last bytes.
            Some(Next::End) => {
                if let Nature::Channel { client, .. } = stream.nature {
                    self.send_control(Control::Disconnect(id, client), batch);
                }
                self.remove(id);
                self.check_drained();
            }
            None => {}
        }
        self.enqueue(id);
    }

    fn send_body(&mut self, id: StreamId, length: usize, batch: &mut Batch) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let mut left = length;
        while left > 0 {
            let piece = stream.outgoing.take(left);
            left -= piece.len();
            batch.payload(piece);
        }
        self.uploading -= length;
        self.writers -= usize::from(stream.outgoing.queued == 0);
        let most = self.most_queued();
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.write_waits
            && (stream.outgoing.queued == 0 || stream.outgoing.queued + WORTH_WAKING <= most)
        {
            stream.write_waits = false;
            self.events.push_back(Event::Writable(id));
        }
    }
}
