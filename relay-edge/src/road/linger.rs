//! An answer that comes before its request's body has: what still arrives is read and dropped behind it.
//!
//! A connection that is closed over unread bytes is reset, and the reset may overtake the answer: the sender would never
//! learn why (RFC 9112 s.9.6). HTTP/2 and HTTP/3 reset the stream to the same effect.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep};

use crate::body::{BodyError, ViewerBody};

/// In all.
const LONGEST: Duration = Duration::from_secs(5);

/// Without a byte: whoever stops sending has read the answer.
const IDLE: Duration = Duration::from_millis(500);

/// An answer, then the rest of what is sent.
pub(super) struct Lingering {
    answer: Option<Bytes>,
    rest: ViewerBody,
    until: Instant,
    idle: Pin<Box<Sleep>>,
}

impl Lingering {
    pub(super) fn new(answer: Bytes, rest: ViewerBody) -> Self {
        Self { answer: Some(answer), rest, until: Instant::now() + LONGEST, idle: Box::pin(sleep(IDLE)) }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(answer) = self.answer.take() {
            return Poll::Ready(Some(Ok(Frame::data(answer))));
        }
        loop {
            if self.idle.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                Some(Ok(_)) => {
                    let next = (Instant::now() + IDLE).min(self.until);
                    self.idle.as_mut().reset(next);
                }
                Some(Err(_)) | None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{iter, pending, repeat_with};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn sent(frames: impl futures_util::Stream<Item = Result<Frame<Bytes>, BodyError>> + Send + 'static) -> ViewerBody {
        ViewerBody::Boxed(StreamBody::new(frames).boxed_unsync())
    }

    async fn lingered(rest: ViewerBody) -> Duration {
        let start = Instant::now();
        let all = Lingering::new(Bytes::from("no"), rest).collect().await.unwrap().to_bytes();
        assert_eq!(all, "no");
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_read_to_its_end_or_until_nobody_sends() {
        let piece = || Ok(Frame::data(Bytes::from_static(&[0; 1000])));
        assert_eq!(lingered(sent(iter([piece(), piece()]))).await, Duration::ZERO);
        assert!(lingered(sent(pending())).await < IDLE + Duration::from_millis(10));
        // One who sends for ever is not listened to for ever.
        let slow = futures_util::StreamExt::then(repeat_with(piece), |frame| async {
            sleep(Duration::from_millis(100)).await;
            frame
        });
        let long = lingered(sent(slow)).await;
        assert!(long >= LONGEST - IDLE && long < LONGEST + IDLE, "{long:?}");
    }
}
