//! The bodies that travel the road, and why one may end early.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;

/// A streamed body, in either direction.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body did not reach its end. The receiver's transfer is aborted, never ended cleanly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the viewer's body ended early")]
    Viewer(#[source] Box<dyn Error + Send + Sync>),
    #[error("the origin's body ended early")]
    Origin(#[source] hyper::Error),
    #[error("the control plane's body ended early")]
    Hub(#[source] hyper::Error),
    #[error("the origin's body ended before the length that it had promised, or was broken off")]
    Short,
    #[error("the tunnel was lost")]
    TunnelLost,
    #[error("nothing moved for too long")]
    Stalled,
    #[error("the viewer's body came too slowly")]
    Slow,
    #[error("the right to this transfer was withdrawn")]
    Cut,
}

/// A body without bytes.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is all there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What a viewer sends with its request, by whichever protocol.
pub(crate) enum ViewerBody {
    /// HTTP/1.1 and HTTP/2.
    Hyper(Incoming),
    /// HTTP/3.
    Boxed(Body),
}

impl http_body::Body for ViewerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(|error| BodyError::Viewer(error.into())),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}
