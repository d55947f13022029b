//! One raw client, from its channel's beginning to its end.
//!
//! What the server's side does not take stays in the client's socket, and the other way round in the tunnel's queue for
//! this channel alone, whose budget the tunnel keeps.

use std::future::{Future as _, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use phlix_protocol::legacy::channel::{Reason, disconnected};
use phlix_protocol::legacy::frame::Kind;
use phlix_protocol::ws::{self, CloseCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::NotMounted;
use super::inbox::{Inbox, Over};
use super::outbox::{self, Outbox};
use crate::metrics::Metrics;
use crate::road::live::Listed;
use crate::tunnels::activity::Activity;
use crate::tunnels::legacy::{Broken, Channel};

/// What is read at once, bytes.
const READ: usize = 16 * 1024;

/// Answers of ours that wait for a client before it is heard further, bytes.
const REPLIES: usize = 8 * 1024;

/// Reads, or writes, in a row, before others have their turn.
const TURNS: usize = 16;

/// For the last words to leave the machine, and for the client to take them.
const FAREWELL: Duration = Duration::from_secs(1);

/// A mounted client.
pub(crate) struct Session {
    channel: Channel,
    listed: Listed,
    activity: Arc<Activity>,
    open: Open,
    inbox: Inbox,
    outbox: Outbox,
    /// The client says no more.
    over: Option<End>,
    /// Until the ticket's rate allows more.
    held: Option<Pin<Box<Sleep>>>,
    /// The token ends.
    expiry: Pin<Box<Sleep>>,
}

/// Counted as open until it is dropped.
struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.legacy.mounts.dec();
    }
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The connection is gone.
    Gone,
    /// The client said good-bye, or can't be understood.
    Close(CloseCode),
    /// The token was withdrawn or has ended.
    Withdrawn,
    /// The channel broke.
    Broken(Broken),
}

impl Session {
    pub(super) fn new(
        channel: Channel,
        listed: Listed,
        activity: Arc<Activity>,
        life: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.legacy.mounts.inc();
        Self {
            open: Open(metrics),
            channel,
            listed,
            activity,
            inbox: Inbox::new(),
            outbox: Outbox::default(),
            over: None,
            held: None,
            expiry: Box::pin(tokio::time::sleep(life)),
        }
    }

    /// Serves the client to the end. `leftover` was read behind its handshake.
    pub(crate) async fn serve<S>(mut self, mut io: S, leftover: BytesMut)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.understand(&leftover);
        drop(leftover);
        let end = poll_fn(|cx| self.poll(cx, &mut io)).await;
        tracing::debug!(channel = self.channel.number(), ?end, "a raw client's channel ends");
        let Self { channel, listed, mut outbox, open, .. } = self;
        let number = channel.number();
        drop((channel, listed, open));
        if farewell(end, &mut outbox) {
            let _ = tokio::time::timeout(FAREWELL, part(&mut io, &mut outbox, number)).await;
        }
    }

    fn poll<S>(&mut self, cx: &mut Context<'_>, io: &mut S) -> Poll<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.activity.register(cx.waker());
        if self.activity.is_cut() || self.expiry.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Withdrawn);
        }
        if let Poll::Ready(end) = self.poll_up(cx, io) {
            return Poll::Ready(end);
        }
        let deaf = self.is_deaf();
        if let Poll::Ready(end) = self.poll_down(cx, io) {
            return Poll::Ready(end);
        }
        if deaf && !self.is_deaf() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether the client has to take our answers before it is heard.
    fn is_deaf(&self) -> bool {
        self.outbox.replies.len() >= REPLIES
    }

    /// From the client to the server.
    fn poll_up<S: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut S) -> Poll<End> {
        for _ in 0..TURNS {
            while let Some(bytes) = self.inbox.front() {
                let before = bytes.len();
                let sent = self.channel.poll_send(cx, bytes);
                self.open.0.bytes_in.inc_by((before - bytes.len()) as u64);
                if sent.is_pending() {
                    return Poll::Pending;
                }
                self.inbox.pop();
            }
            if let Some(end) = self.over {
                return Poll::Ready(end);
            }
            if self.is_deaf() {
                return Poll::Pending;
            }
            let mut space = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => self.over = Some(End::Gone),
                Ok(()) => self.understand(buffer.filled()),
                Err(_) => return Poll::Ready(End::Gone),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn understand(&mut self, bytes: &[u8]) {
        match self.inbox.take(bytes, &mut self.outbox.replies) {
            Ok(()) => {}
            Err(Over::Left(code)) => self.over = Some(End::Close(code.unwrap_or(CloseCode::NORMAL))),
            Err(Over::Broke(code)) => self.over = Some(End::Close(code)),
        }
    }

    /// From the server to the client.
    fn poll_down<S: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut S) -> Poll<End> {
        for _ in 0..TURNS {
            match ready!(self.outbox.poll_write(cx, io, self.channel.number())) {
                Ok(()) => {}
                Err(_) => return Poll::Ready(End::Gone),
            }
            if let Some(held) = &mut self.held {
                ready!(held.as_mut().poll(cx));
                self.held = None;
            }
            let bytes = match ready!(self.channel.poll_bytes(cx)) {
                Ok(bytes) => bytes,
                Err(broken) => return Poll::Ready(End::Broken(broken)),
            };
            self.open.0.bytes_out.inc_by(bytes.len() as u64);
            if let Some(pace) = &self.listed.entry.pace {
                let now = Instant::now();
                pace.spend(bytes.len(), now);
                self.held = pace.wait(now).map(|until| Box::pin(tokio::time::sleep_until(until.into())));
            }
            self.outbox.data(self.channel.number(), bytes);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Writes what the client hears last, behind the message that is under way. `false`: nobody is there.
fn farewell(end: End, outbox: &mut Outbox) -> bool {
    let (told, code) = match end {
        End::Gone => return false,
        End::Close(code) => (None, code),
        End::Withdrawn => (None, NotMounted::Unauthorized.close_code()),
        End::Broken(broken) => {
            let (reason, code) = said(broken);
            (Some(reason), code)
        }
    };
    if matches!(end, End::Withdrawn) {
        outbox.void_rest();
    }
    //= legacy-relay-wire s.3.2: DISCONNECTED {"reason":...} then close
    if let Some(reason) = told {
        outbox::message(&mut outbox.replies, 0, Kind::Disconnected, &disconnected(reason));
    }
    ws::close(&mut outbox.replies, Some(code), "", None);
    true
}

/// What a broken channel is called on the wire.
fn said(broken: Broken) -> (Reason, CloseCode) {
    match broken {
        Broken::Lost(why) => (reason(why), NotMounted::Offline.close_code()),
        Broken::Stalled => (Reason::BackpressureTimeout, NotMounted::Later.close_code()),
        Broken::Idle => (Reason::Timeout, CloseCode::NORMAL),
        Broken::Shut => (Reason::ServerClosed, CloseCode::NORMAL),
    }
}

/// Upstream's word for the end of a tunnel.
fn reason(why: &str) -> Reason {
    match why {
        "server_replaced" => Reason::ServerReplaced,
        "timeout" => Reason::Timeout,
        "invalid_frame" => Reason::InvalidFrame,
        "frame_buffer_overflow" => Reason::FrameBufferOverflow,
        "protocol_error" => Reason::ProtocolError,
        // It left, was lost or was sent away: to a client that is one thing.
        _ => Reason::ServerClosed,
    }
}

/// Writes the last words and waits for the client's own end: a socket that is closed with bytes unread resets, and they
/// would be lost.
async fn part<S>(io: &mut S, outbox: &mut Outbox, channel: u32) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| outbox.poll_write(cx, io, channel)).await?;
    poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await?;
    poll_fn(|cx| {
        loop {
            let mut space = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await
}
