//! The one body type that travels the road, and why it may end early.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};

/// A streamed body, in either direction.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body did not reach its end. The receiver's transfer is aborted, never ended cleanly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the viewer's body ended early")]
    Viewer(#[source] hyper::Error),
    #[error("the origin's body ended early")]
    Origin(#[source] hyper::Error),
    #[error("the control plane's body ended early")]
    Hub(#[source] hyper::Error),
    #[error("nothing moved for too long")]
    Stalled,
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
