//! An answer's body on its way to the viewer, at the rate of the ticket. Listed as long as it runs.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::headers;
use super::live::Listed;
use crate::body::BodyError;

/// A body that waits where the ticket's rate is used up.
pub(super) struct Paced<B> {
    body: B,
    listed: Listed,
    /// Until the ticket's rate allows more.
    held: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, listed: Listed) -> Self {
        Self { body, listed, held: None }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(held) = &mut this.held {
            let entry = &this.listed.entry;
            entry.register(cx.waker());
            if !entry.is_cut() {
                ready!(held.as_mut().poll(cx));
            }
            this.held = None;
        }
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            if let Some(trailers) = frame.trailers_mut() {
                headers::trailers(trailers);
            }
            if let (Some(pace), Some(data)) = (&this.listed.entry.pace, frame.data_ref()) {
                let now = Instant::now();
                pace.spend(data.len(), now);
                this.held = pace.wait(now).map(|until| Box::pin(tokio::time::sleep_until(until.into())));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
