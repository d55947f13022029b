//! Bytes out: which frames go next.

use std::time::Instant;

use bytes::BytesMut;

use super::frame::{ABORT, FIN, FrameType, MAX_PAYLOAD, STOP};
use super::stream::{Lane, SendState};
use super::{Batch, Event, Mux, StreamId};

impl Mux {
    /// Adds frames to a batch until it holds `budget` bytes or there are no more: the last frame may go 16 KiB beyond, and
    /// CREDIT goes with it in any case. `false` when there was nothing to say.
    ///
    /// The order: control messages; answers to PING and our own; OPEN, which must come before the stream's data; RESET;
    /// data of short answers, then of long ones in turns; CREDIT last.
    pub fn poll_transmit(&mut self, now: Instant, budget: usize, batch: &mut Batch) -> bool {
        let before = batch.len();
        self.send_control(budget, batch);
        self.send_pings(now, batch);
        self.send_opens(budget, batch);
        self.send_resets(budget, batch);
        while batch.len() < budget
            && let Some(id) = self.next_ready()
        {
            self.send_data(id, batch);
        }
        self.send_credits(batch);
        batch.len() > before
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something to say.
    pub fn wants_transmit(&self) -> bool {
        self.ack_due
            || self.ping_due
            || !self.control_out.is_empty()
            || !self.pongs.is_empty()
            || !self.opens.is_empty()
            || !self.resets.is_empty()
            || !self.credits.is_empty()
            || self.lanes.iter().any(|lane| !lane.is_empty())
    }

    fn send_control(&mut self, budget: usize, batch: &mut Batch) {
        while !self.control_out.is_empty() && batch.len() < budget {
            let length = self.control_out.len().min(MAX_PAYLOAD);
            batch.head(0, FrameType::Control, 0, length);
            batch.payload(self.control_out.split_to(length).freeze());
            if std::mem::take(&mut self.control_writer_waits) {
                self.events.push_back(Event::ControlWritable);
            }
        }
        if self.control_out.is_empty() {
            self.control_out = BytesMut::new();
        }
    }

    fn send_pings(&mut self, now: Instant, batch: &mut Batch) {
        let answers = !self.pongs.is_empty();
        for opaque in std::mem::take(&mut self.pongs) {
            batch.short(0, FrameType::Pong, 0, &opaque);
        }
        if answers || std::mem::take(&mut self.ack_due) {
            self.ack_due = false;
            self.acked_at = now;
            batch.short(0, FrameType::Ack, 0, &self.arrived.to_be_bytes());
        }
        let due = self.pings.due(self.outstanding() > 0).is_some_and(|due| due <= now);
        if std::mem::take(&mut self.ping_due) || due {
            let number = self.pings.send(now);
            batch.short(0, FrameType::Ping, 0, &number.to_be_bytes());
        }
    }

    fn send_opens(&mut self, budget: usize, batch: &mut Batch) {
        while batch.len() < budget
            && let Some(id) = self.opens.pop_front()
        {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.unopened = false;
            // The first slice alone: the stream's header, where its writer wrote it by itself.
            let length = stream.send.next_length(MAX_PAYLOAD).min(stream.send.front_length());
            batch.head(id.0, FrameType::Open, 0, length);
            if length > 0 {
                batch.payload(stream.send.take(length));
                self.progress.sent(length);
                self.writing -= usize::from(stream.send.queued == 0);
            }
            self.enqueue(id);
        }
    }

    fn send_resets(&mut self, budget: usize, batch: &mut Batch) {
        // Those that wait for their OPEN are put back.
        for _ in 0..self.resets.len() {
            if batch.len() >= budget {
                return;
            }
            let Some(id) = self.resets.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.unopened {
                self.resets.push_back(id);
                continue;
            }
            match (stream.abort.take(), stream.stop.take()) {
                (Some(abort), Some(stop)) if abort == stop => {
                    batch.short(id.0, FrameType::Reset, ABORT | STOP, &abort.to_be_bytes());
                }
                (abort, stop) => {
                    for (code, flag) in [(abort, ABORT), (stop, STOP)] {
                        if let Some(code) = code {
                            batch.short(id.0, FrameType::Reset, flag, &code.to_be_bytes());
                        }
                    }
                }
            }
            self.settle(id);
        }
    }

    /// The stream whose turn it is.
    fn next_ready(&mut self) -> Option<StreamId> {
        for lane in [Lane::Control, Lane::Fresh, Lane::Bulk] {
            while let Some(id) = self.lanes[lane as usize].pop_front() {
                let Some(stream) = self.streams.get_mut(&id) else { continue };
                stream.send.lane = None;
                if stream.lane() == Some(lane) {
                    return Some(id);
                }
                self.enqueue(id);
            }
        }
        None
    }

    /// One frame of a stream's data.
    fn send_data(&mut self, id: StreamId, batch: &mut Batch) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let send = &mut stream.send;
        let length = send.next_length(MAX_PAYLOAD);
        let fin = send.state == SendState::Finishing && length == send.queued;
        batch.head(id.0, FrameType::Data, if fin { FIN } else { 0 }, length);
        let mut left = length;
        while left > 0 {
            let piece = send.take(left);
            left -= piece.len();
            batch.payload(piece);
        }
        self.progress.sent(length);
        if length > 0 {
            self.writing -= usize::from(send.queued == 0);
        }
        if fin {
            send.state = SendState::Finished;
            self.events.push_back(Event::Sent(id));
        }
        let most = self.most_queued();
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.send.waiting
            && stream.send.wants_writer(most)
        {
            stream.send.waiting = false;
            self.events.push_back(Event::Writable(id));
        }
        self.enqueue(id);
        if fin {
            self.settle(id);
        }
    }

    fn send_credits(&mut self, batch: &mut Batch) {
        for id in std::mem::take(&mut self.credits) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let grant = std::mem::take(&mut stream.recv.grant);
            if grant > 0 {
                batch.short(id.0, FrameType::Credit, 0, &grant.to_be_bytes());
            }
        }
    }
}
