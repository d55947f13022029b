//! Bytes in: each frame checked against what the peer may do, then done.

use std::time::Instant;

use bytes::{Buf, Bytes};

use super::frame::{ABORT, FIN, FrameType, HEADER, Header, STOP};
use super::stream::{RecvState, SendState, Stream};
use super::{Event, MAX_CONTROL, Mux, PING_BUSY, StreamId, Violation};

/// PINGs that wait for their answers; older ones are answered by the newest.
const MAX_PONGS: usize = 16;

impl Mux {
    /// Takes bytes of the pipe, cut anywhere. Payloads are slices of them.
    pub fn handle(&mut self, bytes: impl Into<Bytes>, now: Instant) -> Result<(), Violation> {
        let mut bytes = bytes.into();
        if bytes.is_empty() {
            return Ok(());
        }
        self.pings.heard(now);
        self.batch += 1;
        if !self.partial.is_empty() && !self.complete(&mut bytes, now)? {
            return Ok(());
        }
        while let Some(head) = bytes.first_chunk::<HEADER>() {
            let header = Header::decode(*head)?;
            if bytes.len() < HEADER + header.length {
                break;
            }
            bytes.advance(HEADER);
            let payload = bytes.split_to(header.length);
            self.frame(header, payload, now)?;
        }
        self.partial.extend_from_slice(&bytes);
        Ok(())
    }

    /// The WebSocket message ends here: frames don't span messages.
    pub fn end_of_message(&mut self) -> Result<(), Violation> {
        if self.partial.is_empty() { Ok(()) } else { Err(Violation::CutFrame) }
    }

    /// Completes the frame whose beginning came before; `false` when it is still not whole.
    fn complete(&mut self, bytes: &mut Bytes, now: Instant) -> Result<bool, Violation> {
        let mut fill = |partial: &mut bytes::BytesMut, whole: usize| {
            let more = whole.saturating_sub(partial.len()).min(bytes.len());
            partial.extend_from_slice(&bytes.split_to(more));
            partial.len() >= whole
        };
        if !fill(&mut self.partial, HEADER) {
            return Ok(false);
        }
        let head = self.partial.first_chunk::<HEADER>().expect("it was just filled");
        let header = Header::decode(*head)?;
        if !fill(&mut self.partial, HEADER + header.length) {
            return Ok(false);
        }
        let payload = std::mem::take(&mut self.partial).freeze().slice(HEADER..);
        self.frame(header, payload, now)?;
        Ok(true)
    }

    fn frame(&mut self, header: Header, payload: Bytes, now: Instant) -> Result<(), Violation> {
        let id = StreamId(header.stream);
        let Some(kind) = header.kind else { return self.nothing(now) };
        let of_connection = matches!(kind, FrameType::Control | FrameType::Ping | FrameType::Pong | FrameType::Ack);
        if of_connection != (id.0 == 0) {
            return Err(Violation::BadStreamId);
        }
        match kind {
            FrameType::Control => self.control(&payload, now),
            FrameType::Open => self.opened(id, payload, now),
            FrameType::Data => self.data(id, payload, header.flags & FIN != 0, now),
            FrameType::Credit => self.credit(id, payload.clone().get_u32(), now),
            FrameType::Reset => self.was_reset(id, header.flags, payload.clone().get_u16(), now),
            FrameType::Ping => self.pinged(payload.clone().get_u64(), now),
            FrameType::Pong => self.ponged(payload.clone().get_u64(), now),
            FrameType::Ack => self.progress.acknowledge(payload.clone().get_u64()),
        }
    }

    /// A frame that carries nothing came.
    fn nothing(&mut self, now: Instant) -> Result<(), Violation> {
        if self.budgets.empty.take(1, now) { Ok(()) } else { Err(Violation::EmptyFrames) }
    }

    fn control(&mut self, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if payload.is_empty() {
            return self.nothing(now);
        }
        if !self.budgets.control.take(payload.len() as u32, now) || self.control_in.len() + payload.len() > MAX_CONTROL
        {
            return Err(Violation::ControlFlood);
        }
        self.control_in.extend_from_slice(payload);
        if std::mem::take(&mut self.control_reader_waits) {
            self.events.push_back(Event::ControlReadable);
        }
        Ok(())
    }

    fn opened(&mut self, id: StreamId, payload: Bytes, now: Instant) -> Result<(), Violation> {
        if self.is_ours(id) || id.0 <= self.last_remote {
            return Err(Violation::BadStreamId);
        }
        // An OPEN overtakes the end of an older stream in the peer's queue, so it may be ahead of its limit by a few.
        let most = if self.max_streams == 0 { 0 } else { self.max_streams.saturating_add(self.max_streams / 4 + 16) };
        if self.remote_open >= most {
            return Err(Violation::TooManyStreams);
        }
        self.last_remote = id.0;
        self.remote_open += 1;
        self.insert(id, Stream::new(false, now));
        self.accepting.push_back(id);
        self.events.push_back(Event::Opened);
        if payload.is_empty() { Ok(()) } else { self.data(id, payload, false, now) }
    }

    fn data(&mut self, id: StreamId, payload: Bytes, fin: bool, now: Instant) -> Result<(), Violation> {
        let length = payload.len() as u64;
        self.arrived += length;
        self.ack_due |= now.saturating_duration_since(self.acked_at) >= PING_BUSY;
        if length == 0 && !fin {
            self.nothing(now)?;
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.unopened) else {
            return self.late_data(id, length, fin, now);
        };
        let recv = &mut stream.recv;
        if recv.silent {
            return Err(Violation::AfterEnd);
        }
        recv.received += length;
        if recv.received > recv.granted {
            return Err(Violation::CreditOverrun);
        }
        let open = recv.state == RecvState::Open;
        if open {
            recv.push(payload, self.batch);
        }
        if fin {
            recv.silent = true;
            if open {
                recv.state = RecvState::Ended;
                recv.grant = 0;
                self.windows -= recv.window;
                self.receiving -= 1;
            }
        }
        if (length > 0 || fin) && std::mem::take(&mut recv.waiting) {
            self.events.push_back(Event::Readable(id));
        }
        if fin {
            self.settle(id);
        }
        Ok(())
    }

    /// Data of a stream that is not there: under way when we stopped reading, or foul.
    fn late_data(&mut self, id: StreamId, length: u64, fin: bool, now: Instant) -> Result<(), Violation> {
        if let Some(closed) = self.closed.get_mut(&id) {
            closed.credit = closed.credit.checked_sub(length).ok_or(Violation::CreditOverrun)?;
            if fin {
                self.closed.remove(&id);
            }
            return Ok(());
        }
        if self.is_past(id) && self.budgets.strays.take(1, now) { Ok(()) } else { Err(Violation::UnknownStream) }
    }

    fn credit(&mut self, id: StreamId, amount: u32, now: Instant) -> Result<(), Violation> {
        let most = self.most_queued();
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.unopened) else {
            // Given before the peer knew that we had finished.
            return if self.is_past(id) { self.nothing(now) } else { Err(Violation::BadStreamId) };
        };
        if amount == 0 {
            return self.nothing(now);
        }
        let send = &mut stream.send;
        send.credit = send.credit.saturating_add(amount.into());
        if send.waiting && send.wants_writer(most) {
            send.waiting = false;
            self.events.push_back(Event::Writable(id));
        }
        self.enqueue(id);
        Ok(())
    }

    fn was_reset(&mut self, id: StreamId, flags: u8, code: u16, now: Instant) -> Result<(), Violation> {
        if !self.budgets.resets.take(1, now) {
            return Err(Violation::ResetFlood);
        }
        let both = flags & (ABORT | STOP) == 0;
        let (abort, stop) = (both || flags & ABORT != 0, both || flags & STOP != 0);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.unopened) else {
            if !self.is_past(id) {
                return Err(Violation::BadStreamId);
            }
            if abort {
                self.closed.remove(&id);
            }
            return Ok(());
        };
        if abort {
            stream.recv.silent = true;
            if stream.recv.state == RecvState::Open {
                stream.recv.cut(RecvState::Reset(code));
                self.windows -= stream.recv.window;
                self.receiving -= 1;
                if std::mem::take(&mut stream.recv.waiting) {
                    self.events.push_back(Event::Readable(id));
                }
            }
        }
        if stop && matches!(stream.send.state, SendState::Open | SendState::Finishing) {
            self.writing -= usize::from(stream.send.queued > 0);
            stream.send.cut(SendState::Stopped(code));
            if std::mem::take(&mut stream.send.waiting) {
                self.events.push_back(Event::Writable(id));
            }
            self.events.push_back(Event::Sent(id));
        }
        self.settle(id);
        Ok(())
    }

    fn pinged(&mut self, opaque: u64, now: Instant) -> Result<(), Violation> {
        if !self.budgets.pings.take(1, now) {
            return Err(Violation::PingFlood);
        }
        if self.pongs.len() >= MAX_PONGS {
            self.pongs.pop_front();
        }
        self.pongs.push_back(opaque.to_be_bytes());
        Ok(())
    }

    fn ponged(&mut self, number: u64, now: Instant) -> Result<(), Violation> {
        if !self.pings.answered(number, now) {
            return self.nothing(now);
        }
        self.closed.retain(|_, closed| closed.until_pong > number);
        if self.closed.is_empty() {
            self.closed = std::collections::HashMap::new();
        }
        Ok(())
    }
}
