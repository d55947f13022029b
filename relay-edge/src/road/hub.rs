//! The hub's own domain: passed on to the control plane as it is, less what only we may say.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{COOKIE, EXPECT, SET_COOKIE};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use super::account::Taken;
use super::headers::{self, Viewer};
use super::refusal::{Refusal, hub_away};
use crate::body::{self, Body, BodyError, ViewerBody};
use crate::uplink::Uplink;

/// How far a visitor's connection is trusted with cookies (trust s.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cookies {
    Pass,
    /// Plain HTTP from afar: none in, none out.
    Stay,
}

pub(crate) async fn pass_on(
    uplink: &Uplink,
    mut head: Parts,
    incoming: ViewerBody,
    viewer: &Viewer<'_>,
    cookies: Cookies,
    taken: Taken,
    patience: Duration,
) -> Result<Response<Body>, Refusal> {
    headers::for_hub(&mut head.headers, viewer);
    // Taking the body is what tells the viewer to send it.
    head.headers.remove(EXPECT);
    if cookies == Cookies::Stay {
        head.headers.remove(COOKIE);
    }
    head.extensions.clear();
    let body = if incoming.is_end_stream() { body::empty() } else { ToHub { incoming, taken }.boxed_unsync() };
    let answer = tokio::time::timeout(patience, uplink.client.pass_on(Request::from_parts(head, body)));
    let response = match answer.await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the control plane did not answer a viewer's request");
            return Err(hub_away());
        }
        Err(_) => {
            return Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "gateway.timeout",
                "The hub did not answer in time.",
            ));
        }
    };
    let (mut head, incoming) = response.into_parts();
    headers::from_hub(&mut head.headers);
    if cookies == Cookies::Stay {
        head.headers.remove(SET_COOKIE);
    }
    head.extensions.clear();
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(head, incoming.map_err(BodyError::Hub).boxed_unsync()))
}

/// A viewer's body on its way to the control plane.
struct ToHub {
    incoming: ViewerBody,
    taken: Taken,
}

impl http_body::Body for ToHub {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.taken.add(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
