//! Streams that an edge opens: admit, connect to the origin, splice (native-tunnel s.3).

mod admission;
pub(crate) mod origin;
mod splice;
mod stall;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use phlix_link::{Link, RecvStream, SendStream, Stopped as Done};
use phlix_protocol::native::stream::{ResetCode, StreamHeader, StreamStatus};
use tokio::task::JoinSet;

use crate::shared::Shared;
pub(crate) use admission::Admission;
use stall::StallWatch;

/// Takes streams as long as the connection lives; they end with this future.
pub(crate) async fn accept(shared: Arc<Shared>, link: Link, open: Arc<AtomicUsize>) {
    let mut streams = JoinSet::new();
    let stalled = Arc::default();
    loop {
        tokio::select! {
            opened = link.accept() => match opened {
                Ok((send, receive)) => {
                    let counted = Counted::new(&shared, &open);
                    let stall = StallWatch::new(Arc::clone(&stalled), shared.config.timings.stalled_upload);
                    let shared = Arc::clone(&shared);
                    streams.spawn(async move {
                        let _counted = counted;
                        one_stream(&shared, Answer::new(send), receive, stall).await;
                    });
                }
                Err(_) => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

/// One relayed connection from its header to its end.
async fn one_stream(shared: &Shared, mut answer: Answer, mut request: RecvStream, stall: StallWatch) {
    let limit = shared.config.timings.stream_header;
    let header = match tokio::time::timeout(limit, read_header(&mut request)).await {
        Ok(Some(header)) => header,
        Ok(None) | Err(_) => {
            request.stop(ResetCode::Protocol);
            return answer.reset(ResetCode::Protocol);
        }
    };
    // A viewer who leaves meanwhile is not connected for.
    let stopped = answer.stopped();
    let connected = tokio::select! {
        biased;
        _ = stopped => return answer.reset(ResetCode::CancelledByViewer),
        connected = admit_and_connect(shared, &header) => connected,
    };
    match connected {
        Ok(origin) => {
            if answer.say(StreamStatus::Connected).await {
                splice::splice(answer, request, origin, stall).await;
            }
        }
        Err(status) => {
            tracing::debug!(?status, "stream refused");
            answer.say(status).await;
            answer.finish();
        }
    }
}

async fn admit_and_connect(shared: &Shared, header: &StreamHeader) -> Result<origin::OriginStream, StreamStatus> {
    let credentials = shared.credentials().ok_or(StreamStatus::NotAllowed)?;
    if let Err(refusal) = shared.admission.admit(&shared.keys, shared.clock.now(), &credentials.claims, header).await {
        tracing::info!(%refusal, "a viewer's stream was not admitted");
        return Err(StreamStatus::NotAllowed);
    }
    origin::connect(shared).await
}

/// The header, `None` where there is none that can be used.
async fn read_header(request: &mut RecvStream) -> Option<StreamHeader> {
    let mut length = [0; 2];
    request.read_exact(&mut length).await.ok()?;
    // At most 16 KiB, and only as much as has come is held by the connection's window meanwhile.
    let mut json = vec![0; StreamHeader::announced(length).ok()?];
    request.read_exact(&mut json).await.ok()?;
    StreamHeader::parse(&json).ok()
}

/// Our side of a stream. Where it is dropped before it was finished, the edge sees a reset and never a clean end:
/// a truncated answer must not look whole.
struct Answer {
    send: SendStream,
    ended: bool,
}

impl Answer {
    fn new(send: SendStream) -> Self {
        Self { send, ended: false }
    }

    /// Completes when the edge wants no more.
    fn stopped(&self) -> impl Future<Output = Stopped> + Send + Sync + 'static {
        let stopped = self.send.stopped();
        async move {
            match stopped.await {
                Done::Asked(0) => Stopped::InOrder,
                // Nothing to be told.
                Done::Delivered => std::future::pending().await,
                Done::Asked(_) | Done::Lost => Stopped::CutOff,
            }
        }
    }

    async fn say(&mut self, status: StreamStatus) -> bool {
        self.send.write_all(&[status.byte()]).await.is_ok()
    }

    fn finish(&mut self) {
        self.ended = true;
        let _ = self.send.finish();
    }

    fn reset(&mut self, reset: ResetCode) {
        self.ended = true;
        self.send.reset(reset);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            self.reset(ResetCode::Internal);
        }
    }
}

/// How an edge ends a stream before the origin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// Code 0: a pooled connection is let go between two requests.
    InOrder,
    /// The viewer has left, or the tunnel is gone.
    CutOff,
}

/// Counts a stream as open, in its tunnel and in all.
struct Counted {
    shared: Arc<Shared>,
    tunnel: Arc<AtomicUsize>,
}

impl Counted {
    fn new(shared: &Arc<Shared>, tunnel: &Arc<AtomicUsize>) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        tunnel.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), tunnel: Arc::clone(tunnel) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
        self.tunnel.fetch_sub(1, Ordering::Relaxed);
    }
}
