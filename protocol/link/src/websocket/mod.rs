//! The multiplexer over a WebSocket: one task owns the socket and both directions (native-tunnel s.4).
//!
//! The task and everybody who holds a [`Connection`], [`SendStream`] or [`RecvStream`] share one state behind a mutex that
//! is never held across an await. Who has to wait leaves a waker; who leaves the task something to send wakes it, unless
//! the socket is full. The connection ends with its last holder.
//!
//! A close travels as a WebSocket close frame of code 4000 + `native::close`'s.

mod driver;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use phlix_protocol::native::mux::{Config, Mux, Role};
use phlix_protocol::ws;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::end::End;
use crate::health::Sample;
use crate::link::Side;

use driver::Driver;
use shared::{Handle, Shared};
use stream::Channel;
pub(crate) use stream::{RecvStream, SendStream};

/// What all windows together may grow to until the owner says otherwise, bytes.
const AGENT_CAP: u64 = 64 << 20;
const EDGE_CAP: u64 = 256 << 20;

/// Streams that an edge may open until the agent says otherwise. Agents open none.
const AGENT_STREAMS: u32 = 1024;

/// Until a round trip was measured: what RFC 9002 s.6.2.2 assumes.
const FIRST_RTT: Duration = Duration::from_millis(333);

/// A connection; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    handle: Arc<Handle>,
    exporter: Option<[u8; 32]>,
}

impl Connection {
    /// Starts to drive a WebSocket whose handshake is done. `leftover` is what was read beyond it; `masks` gives a fresh
    /// random key at each call, and is asked by the agent's end alone, which is the client.
    pub(crate) fn start<S, M>(io: S, side: Side, leftover: BytesMut, exporter: Option<[u8; 32]>, masks: M) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        M: FnMut() -> [u8; 4] + Send + Unpin + 'static,
    {
        let (role, end, receive_cap, max_streams) = match side {
            Side::Agent => (Role::Agent, ws::Role::Client, AGENT_CAP, AGENT_STREAMS),
            Side::Edge => (Role::Edge, ws::Role::Server, EDGE_CAP, 0),
        };
        let mux = Mux::new(Config { role, receive_cap, max_streams }, Instant::now().into_std());
        let shared = Arc::new(Shared::new(mux));
        tokio::spawn(Driver::new(io, end, leftover, masks, shared.clone()));
        Self { handle: Arc::new(Handle::new(shared)), exporter }
    }

    /// The control channel. Both ends have it from the start.
    pub(crate) fn control(&self) -> Result<(SendStream, RecvStream), End> {
        match self.close_reason() {
            Some(end) => Err(end),
            None => Ok(self.halves(Channel::Control)),
        }
    }

    pub(crate) fn open(&self) -> Result<(SendStream, RecvStream), End> {
        let opened = self.shared().with(|state| match &state.end {
            Some(end) => Err(end.clone()),
            None => Ok(state.mux.open(Instant::now().into_std())),
        })?;
        let id = opened.ok_or_else(|| End::Lost("all stream ids are used up".to_owned()))?;
        Ok(self.halves(Channel::Stream(id)))
    }

    pub(crate) async fn accept(&self) -> Result<(SendStream, RecvStream), End> {
        let shared = self.shared();
        let id = shared.when(|state| match &state.end {
            Some(end) => Some(Err(end.clone())),
            None => state.mux.accept().map(Ok),
        });
        Ok(self.halves(Channel::Stream(id.await?)))
    }

    fn halves(&self, channel: Channel) -> (SendStream, RecvStream) {
        (SendStream::new(self.handle.clone(), channel), RecvStream::new(self.handle.clone(), channel))
    }

    pub(crate) fn exporter(&self) -> Option<[u8; 32]> {
        self.exporter
    }

    /// Ends the connection; control messages that were written before still go out.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        self.shared().close(code, reason);
    }

    pub(crate) async fn closed(&self) -> End {
        self.shared().when(|state| state.end.clone()).await
    }

    pub(crate) fn close_reason(&self) -> Option<End> {
        self.shared().with(|state| state.end.clone())
    }

    /// Completes when the close was sent and the socket is let go. On a connection that is not closed: never.
    pub(crate) async fn flushed(&self) {
        self.shared().when(|state| state.gone.then_some(())).await;
    }

    pub(crate) fn set_receive_window(&self, bytes: u32) {
        self.shared().with(|state| state.mux.set_receive_cap(bytes.into()));
    }

    pub(crate) fn set_max_streams(&self, streams: u32) {
        self.shared().with(|state| state.mux.set_max_streams(streams));
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.shared().with(|state| state.mux.rtt()).unwrap_or(FIRST_RTT)
    }

    pub(crate) fn sample(&self) -> Sample {
        self.shared()
            .with(|state| Sample { outstanding: state.mux.outstanding() > 0, progress: state.mux.acknowledged() })
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }
}
