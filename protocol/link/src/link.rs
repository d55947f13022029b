//! The connection itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use phlix_protocol::native::{EXPORTER_LABEL, mux};
use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::end::End;
use crate::health::Sample;
use crate::measured::Watched;
use crate::stream::{Priority, RecvStream, SendStream};
use crate::websocket;

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Quic,
    WebSocket,
}

impl Transport {
    /// The word in logs, metrics and settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Agent,
    Edge,
}

/// A connection; clones are the same one.
#[derive(Debug, Clone)]
pub struct Link(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Quic(Quic),
    WebSocket(websocket::Connection),
}

#[derive(Debug, Clone)]
struct Quic {
    connection: quinn::Connection,
    /// The dialler's: it owns the socket, and sends the close.
    endpoint: Option<quinn::Endpoint>,
    stream_window: u32,
    seen: Arc<Seen>,
}

/// What the last progress was, and what had been sent then.
#[derive(Debug, Default)]
struct Seen {
    progress: AtomicU64,
    eliciting: AtomicU64,
}

impl Link {
    /// Over a QUIC connection that came to us, whose streams may each have `stream_window` bytes in flight towards us.
    pub fn quic(connection: quinn::Connection, stream_window: u32) -> Self {
        Self(Kind::Quic(Quic { connection, endpoint: None, stream_window, seen: Arc::default() }))
    }

    /// Over a QUIC connection that was dialled from an endpoint of its own.
    pub fn quic_dialled(endpoint: quinn::Endpoint, connection: quinn::Connection, stream_window: u32) -> Self {
        Self(Kind::Quic(Quic { connection, endpoint: Some(endpoint), stream_window, seen: Arc::default() }))
    }

    /// Over a WebSocket whose handshake is done; `leftover` was read beyond it. `masks` gives four fresh random bytes at
    /// each call, and is asked at the agent's end alone. A task is spawned that owns the socket.
    pub fn websocket<S, M>(io: S, side: Side, leftover: BytesMut, exporter: Option<[u8; 32]>, masks: M) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        M: FnMut() -> [u8; 4] + Send + Unpin + 'static,
    {
        Self(Kind::WebSocket(websocket::Connection::start(io, side, leftover, exporter, masks)))
    }

    pub fn transport(&self) -> Transport {
        match &self.0 {
            Kind::Quic(_) => Transport::Quic,
            Kind::WebSocket(_) => Transport::WebSocket,
        }
    }

    /// The control channel, as the agent opens it: once, before anything else.
    pub async fn open_control(&self) -> Result<(SendStream, RecvStream), End> {
        match &self.0 {
            Kind::Quic(quic) => {
                let (send, recv) = self.quic_streams(quic.connection.open_bi().await)?;
                send.set_priority(Priority::Control);
                Ok((send, recv))
            }
            Kind::WebSocket(socket) => socket.control().map(halves),
        }
    }

    /// The control channel, as the edge takes it: once, before anything else.
    pub async fn accept_control(&self) -> Result<(SendStream, RecvStream), End> {
        match &self.0 {
            Kind::Quic(quic) => {
                let (send, recv) = self.quic_streams(quic.connection.accept_bi().await)?;
                send.set_priority(Priority::Control);
                Ok((send, recv))
            }
            Kind::WebSocket(socket) => socket.control().map(halves),
        }
    }

    /// A new stream. Waits while the peer grants none.
    pub async fn open(&self) -> Result<(SendStream, RecvStream), End> {
        match &self.0 {
            Kind::Quic(quic) => self.quic_streams(quic.connection.open_bi().await),
            Kind::WebSocket(socket) => socket.open().map(halves),
        }
    }

    /// The next stream that the peer opens.
    pub async fn accept(&self) -> Result<(SendStream, RecvStream), End> {
        match &self.0 {
            Kind::Quic(quic) => self.quic_streams(quic.connection.accept_bi().await),
            Kind::WebSocket(socket) => socket.accept().await.map(halves),
        }
    }

    fn quic_streams(
        &self,
        opened: Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>,
    ) -> Result<(SendStream, RecvStream), End> {
        let (send, recv) = opened?;
        let send = SendStream::from(send);
        send.set_priority(Priority::Fresh);
        Ok((send, recv.into()))
    }

    /// 32 bytes that both ends of the TLS connection know and nobody else; `None` where TLS does not end here.
    //= trust s.3
    pub fn exporter(&self) -> Option<[u8; 32]> {
        let mut exported = [0; 32];
        match &self.0 {
            Kind::Quic(quic) => {
                quic.connection.export_keying_material(&mut exported, EXPORTER_LABEL, b"").ok()?;
                Some(exported)
            }
            Kind::WebSocket(socket) => socket.exporter(),
        }
    }

    /// Ends the connection; the peer hears code and reason.
    pub fn close(&self, code: u32, reason: &str) {
        match &self.0 {
            Kind::Quic(quic) => quic.connection.close(VarInt::from_u32(code), reason.as_bytes()),
            Kind::WebSocket(socket) => socket.close(code, reason),
        }
    }

    /// Completes when the connection has ended, and says why.
    pub async fn closed(&self) -> End {
        match &self.0 {
            Kind::Quic(quic) => quic.connection.closed().await.into(),
            Kind::WebSocket(socket) => socket.closed().await,
        }
    }

    /// Why the connection has ended, where it has.
    pub fn close_reason(&self) -> Option<End> {
        match &self.0 {
            Kind::Quic(quic) => quic.connection.close_reason().map(End::from),
            Kind::WebSocket(socket) => socket.close_reason(),
        }
    }

    /// Completes when a close has been sent, on a connection that was dialled from here. May never: bound it by time.
    pub async fn flushed(&self) {
        match &self.0 {
            Kind::Quic(quic) => {
                if let Some(endpoint) = &quic.endpoint {
                    endpoint.wait_idle().await;
                }
            }
            Kind::WebSocket(socket) => socket.flushed().await,
        }
    }

    /// What all streams together may have in flight towards us, in bytes.
    pub fn set_receive_window(&self, bytes: u32) {
        match &self.0 {
            Kind::Quic(quic) => quic.connection.set_receive_window(VarInt::from_u32(bytes)),
            Kind::WebSocket(socket) => socket.set_receive_window(bytes),
        }
    }

    /// How many streams the peer may have open at once, the control channel aside.
    pub fn set_max_streams(&self, streams: u32) {
        match &self.0 {
            Kind::Quic(quic) => quic.connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams)),
            Kind::WebSocket(socket) => socket.set_max_streams(streams),
        }
    }

    /// How many answers that nobody reads a window of so many bytes bears: they may hold three quarters of it.
    pub fn unread_borne(&self, window: u32) -> usize {
        let each = match &self.0 {
            Kind::Quic(quic) => u64::from(quic.stream_window.max(1)),
            Kind::WebSocket(_) => mux::INITIAL_CREDIT,
        };
        usize::try_from(u64::from(window) * 3 / 4 / each).unwrap_or(usize::MAX).max(1)
    }

    /// The round trip, as the transport last measured it.
    pub fn rtt(&self) -> Duration {
        match &self.0 {
            Kind::Quic(quic) => quic.connection.rtt(),
            Kind::WebSocket(socket) => socket.rtt(),
        }
    }

    /// How the data path does, for [`crate::PathHealth`].
    pub fn sample(&self) -> Sample {
        match &self.0 {
            Kind::Quic(quic) => quic.sample(),
            Kind::WebSocket(socket) => socket.sample(),
        }
    }
}

fn halves((send, recv): (websocket::SendStream, websocket::RecvStream)) -> (SendStream, RecvStream) {
    (send.into(), recv.into())
}

impl Quic {
    fn sample(&self) -> Sample {
        let stats = self.connection.stats();
        let eliciting = eliciting(&stats);
        // A path that changes gets another controller: asked anew each time.
        let watched = self.connection.congestion_state().into_any().downcast::<Watched>();
        let progress = watched.map_or(stats.frame_rx.acks, |watched| watched.progress());
        // What was sent after the progress and before this glance counts as arrived. If it was lost, a loss probe raises
        // the number again: the probe timer runs exactly while something that must be acknowledged is in flight, and fires
        // within as long as it has been silent, or a few round trips (RFC 9002 s.6.2).
        if self.seen.progress.swap(progress, Ordering::Relaxed) != progress {
            self.seen.eliciting.store(eliciting, Ordering::Relaxed);
        }
        Sample { outstanding: self.seen.eliciting.load(Ordering::Relaxed) != eliciting, progress }
    }
}

/// How many frames were sent that must be acknowledged, less CRYPTO, which belongs to the handshake (RFC 9002 s.2), and
/// rare ones, for which loss probes speak when they are lost.
fn eliciting(stats: &quinn::ConnectionStats) -> u64 {
    let sent = &stats.frame_tx;
    // A probe of path MTU discovery is a PING, with an IMMEDIATE_ACK where the peer knows that frame. A good path may lose
    // it, and it is not sent again.
    let sizes = stats.path.sent_plpmtud_probes;
    // A loss probe is an IMMEDIATE_ACK, or a PING where the peer doesn't know that frame.
    let probes = sent.ping.saturating_sub(sizes) + sent.immediate_ack.saturating_sub(sizes);
    probes
        + sent.stream
        + sent.max_data
        + sent.max_stream_data
        + sent.max_streams_bidi
        + sent.reset_stream
        + sent.stop_sending
        + sent.data_blocked
        + sent.stream_data_blocked
}

#[cfg(test)]
mod tests;
