//! Which edge is speaking: the header `X-Phlix-Edge`, a token that the edge signed for this very request.

use std::fmt;
use std::future::ready;
use std::pin::Pin;

use http::request::Parts;
use phlix_protocol::ids::EdgeId;
use thiserror::Error;

use crate::store::StoreError;

/// Where an edge's identity rides.
pub(crate) const HEADER: &str = "x-phlix-edge";

/// A core edge that was recognised by its token: its word about the viewer's address is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreEdge(pub(crate) EdgeId);

/// Why the header is not believed.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// Unknown, unapproved or revoked edge, a bad or stale or replayed token, another request's token.
    #[error("the edge's identity is not valid")]
    Invalid,
    /// The edge is known, but not trusted with the hub's own domain.
    #[error("the edge is not a core edge")]
    NotCore,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The answer, when it is known.
pub(crate) type Identifying<'a> = Pin<Box<dyn Future<Output = Result<CoreEdge, IdentityError>> + Send + 'a>>;

/// Tells the edge that passed a viewer's request on. The token covers method, path and time, not the body.
pub(crate) trait EdgeAuth: fmt::Debug + Send + Sync {
    /// Checks the token of a request that carries the header.
    fn identify<'a>(&'a self, head: &'a Parts, token: &'a str) -> Identifying<'a>;
}

/// A hub without edges: nobody is believed.
#[derive(Debug)]
pub(crate) struct NoEdges;

impl EdgeAuth for NoEdges {
    fn identify<'a>(&'a self, _head: &'a Parts, _token: &'a str) -> Identifying<'a> {
        Box::pin(ready(Err(IdentityError::Invalid)))
    }
}
