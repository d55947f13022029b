//! Bytes in: each frame checked, then done.

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::incoming::BLOCK;
use super::stream::{Expected, Nature};
use super::violation::{MAX_FRAMES, SMALL};
use super::{Event, Failure, Stage, StreamId, Tunnel, Violation};
use crate::legacy::frame::{Kind, Piece};
use crate::legacy::handshake::{Hello, HelloError, MAX_HELLO};
use crate::legacy::http::{BODY, END, HEAD, ResponseHead};

/// What the frame that is under way is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inbound {
    /// Nobody.
    Skip,
    /// A head, whose JSON is put together.
    Head,
    /// Bytes for a viewer.
    Body,
}

impl Tunnel {
    /// Takes a piece of a WebSocket message, text or binary, cut anywhere. Payloads are slices of it.
    pub fn receive(&mut self, piece: impl Into<Bytes>, end_of_message: bool, now: Instant) -> Result<(), Violation> {
        let mut bytes = piece.into();
        if !bytes.is_empty() {
            self.heard = now;
        } else if end_of_message && self.frames_in_message == 0 && !self.budgets.small.take(1, now) {
            return Err(Violation::SmallFlood);
        }
        self.bytes_in += bytes.len() as u64;
        match &mut self.stage {
            Stage::Hello { until, text } => {
                if text.len() + bytes.len() > MAX_HELLO {
                    return Err(HelloError::TooLong.into());
                }
                text.extend_from_slice(&bytes);
                if end_of_message {
                    let hello = Hello::parse(text)?;
                    self.stage = Stage::Verifying { until: *until };
                    self.events.push_back(Event::Hello(hello));
                }
                return Ok(());
            }
            //= legacy-relay-wire s.1.2: from then on only relay frames
            Stage::Verifying { .. } => return Err(Violation::Early),
            Stage::Open | Stage::Draining { .. } => {}
            Stage::Closed => return Ok(()),
        }
        while let Some(piece) = self.decoder.decode(&mut bytes)? {
            self.piece(piece, now)?;
        }
        if end_of_message {
            self.frames_in_message = 0;
        }
        Ok(())
    }

    fn piece(&mut self, piece: Piece, now: Instant) -> Result<(), Violation> {
        if piece.first {
            self.counts.frames_in += 1;
            self.frames_in_message += 1;
            if self.frames_in_message > MAX_FRAMES {
                return Err(Violation::TooManyFrames);
            }
        }
        let id = StreamId(piece.id);
        match piece.kind {
            //= legacy-relay-wire s.4: hub must not echo
            Kind::Heartbeat => self.small(&piece, now),
            Kind::HttpCancel => self.cancelled(id, &piece, now),
            Kind::HttpResponse => self.response(id, piece, now),
            Kind::Data => self.data(id, piece, now),
            //= legacy-relay-wire s.2: closes on any inbound type other than DATA, HTTP_RESPONSE, HTTP_CANCEL, HEARTBEAT
            Kind::ClientConnect | Kind::ClientDisconnect | Kind::Disconnected | Kind::Error | Kind::HttpRequest => {
                Err(Violation::UnexpectedType)
            }
        }
    }

    /// A small frame came that somebody waits for, or that is for all.
    fn small(&mut self, piece: &Piece, now: Instant) -> Result<(), Violation> {
        if piece.first && piece.length < SMALL && !self.budgets.small.take(1, now) {
            return Err(Violation::SmallFlood);
        }
        Ok(())
    }

    /// A frame came that nobody waits for: of a stream that ended, or that never was.
    fn unwanted(&mut self, id: StreamId, piece: &Piece, now: Instant) -> Result<(), Violation> {
        self.counts.dropped_bytes += piece.bytes.len() as u64;
        if !piece.first {
            return Ok(());
        }
        self.counts.dropped_frames += 1;
        if !self.was_used(id) {
            return if self.budgets.strays.take(1, now) { Ok(()) } else { Err(Violation::StrayFlood) };
        }
        // A server goes on copying a file to a viewer who left: that costs its own line more than it costs us.
        if piece.length < SMALL && !self.budgets.late.take(1, now) {
            return Err(Violation::SmallFlood);
        }
        Ok(())
    }

    /// Whether somebody waits for what the server says of this stream.
    fn listens(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.answer.is_none() && stream.told)
    }

    fn cancelled(&mut self, id: StreamId, piece: &Piece, now: Instant) -> Result<(), Violation> {
        //= legacy-relay-wire s.2.3: after END the server sends HTTP_CANCEL with the same id
        if !id.is_request() || !self.listens(id) {
            return self.unwanted(id, piece, now);
        }
        self.small(piece, now)?;
        //= legacy-relay-wire s.2.3: without an END for an in-flight id, failing the request is safer
        self.end(id, Err(Failure::Cancelled), false, now);
        Ok(())
    }

    fn data(&mut self, id: StreamId, piece: Piece, now: Instant) -> Result<(), Violation> {
        if id.is_request() || !self.listens(id) {
            return self.unwanted(id, &piece, now);
        }
        self.small(&piece, now)?;
        self.deliver(id, piece.bytes, now);
        Ok(())
    }

    fn response(&mut self, id: StreamId, mut piece: Piece, now: Instant) -> Result<(), Violation> {
        if !id.is_request() || !self.listens(id) {
            self.inbound = Inbound::Skip;
            self.head = BytesMut::new();
            return self.unwanted(id, &piece, now);
        }
        if piece.first {
            self.small(&piece, now)?;
            self.inbound = match self.tagged(id, &mut piece) {
                Ok(inbound) => inbound,
                Err(result) => {
                    // After an END, the upload's rest is what the server may not know to be void.
                    let tell = result.is_err() || self.streams.get(&id).is_some_and(|it| !it.outgoing.is_finished());
                    self.end(id, result, tell, now);
                    Inbound::Skip
                }
            };
        }
        match self.inbound {
            Inbound::Skip => self.counts.dropped_bytes += piece.bytes.len() as u64,
            Inbound::Head => self.headed(id, piece, now),
            Inbound::Body => self.body(id, piece.bytes, now),
        }
        Ok(())
    }

    /// Reads the tag of an answer's chunk. `Err` is how the answer ends by it.
    fn tagged(&mut self, id: StreamId, piece: &mut Piece) -> Result<Inbound, Result<(), Failure>> {
        let Some(Nature::Request { headed, expected, .. }) = self.streams.get(&id).map(|stream| &stream.nature) else {
            return Ok(Inbound::Skip);
        };
        if piece.bytes.is_empty() {
            return Err(Err(Failure::BadFrame));
        }
        match (piece.bytes.get_u8(), headed) {
            (HEAD, false) => Ok(Inbound::Head),
            (HEAD, true) => Err(Err(Failure::SecondHead)),
            (BODY, true) => Ok(Inbound::Body),
            (BODY, false) => Err(Err(Failure::BadFrame)),
            (END, _) if piece.length != 1 => Err(Err(Failure::BadFrame)),
            (END, false) => Err(Err(Failure::NoHead)),
            //= legacy-relay-wire s.2.3: the hub must compare bytes with Content-Length and abort on a shortfall
            (END, true) if expected.is_short() => Err(Err(Failure::Short)),
            (END, true) => Err(Ok(())),
            _ => Err(Err(Failure::BadFrame)),
        }
    }

    /// A piece of an answer's head.
    fn headed(&mut self, id: StreamId, piece: Piece, now: Instant) {
        let parsed = match (piece.last, self.head.is_empty()) {
            (true, true) => ResponseHead::parse(&piece.bytes),
            (last, _) => {
                // A frame's payload at most.
                self.head.extend_from_slice(&piece.bytes);
                if !last {
                    return;
                }
                ResponseHead::parse(&std::mem::take(&mut self.head))
            }
        };
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return self.end(id, Err(error.into()), true, now),
        };
        self.counts.skipped_fields += parsed.skipped as u64;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Nature::Request { bodiless, headed, head, expected } = &mut stream.nature {
            *expected = Expected::of(&parsed, *bodiless);
            *headed = true;
            *head = Some(parsed);
        }
        if std::mem::take(&mut stream.read_waits) {
            self.events.push_back(Event::Readable(id));
        }
    }

    /// A piece of an answer's body.
    fn body(&mut self, id: StreamId, bytes: Bytes, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Nature::Request { expected, .. } = &mut stream.nature else { return };
        match expected.less(bytes.len()) {
            Some(Expected::Nothing) => self.counts.dropped_bytes += bytes.len() as u64,
            Some(less) => {
                *expected = less;
                self.deliver(id, bytes, now);
            }
            None => self.end(id, Err(Failure::TooLong), true, now),
        }
    }

    /// Bytes for whoever reads this stream.
    fn deliver(&mut self, id: StreamId, bytes: Bytes, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.touch(now);
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let pinned = stream.incoming.pins();
        stream.incoming.push(bytes, self.bytes_in / BLOCK, self.fairness.may_pin());
        let pins = stream.incoming.pins();
        if std::mem::take(&mut stream.read_waits) {
            self.events.push_back(Event::Readable(id));
        }
        self.came(id, length, pinned, pins, now);
    }
}
