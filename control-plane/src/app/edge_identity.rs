//! Which edge is speaking: the header `X-Phlix-Edge`, a token that the edge signed for this very request.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use phlix_protocol::ids::EdgeId;
use thiserror::Error;

use super::edges::Edges;
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

/// Edges are known by their keys.
#[derive(Debug)]
pub(crate) struct ByKey(pub(crate) Arc<Edges>);

impl EdgeAuth for ByKey {
    fn identify<'a>(&'a self, head: &'a Parts, token: &'a str) -> Identifying<'a> {
        Box::pin(async move {
            let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
            let found = self.0.identify(token, head.method.as_str(), target).await?;
            // With a body hash it is one of the edge's own questions, not a viewer's request that it passes on.
            let found = found.filter(|identified| identified.body_hash.is_none()).ok_or(IdentityError::Invalid)?;
            let edge = self.0.accept(found).ok_or(IdentityError::Invalid)?;
            if edge.is_core() { Ok(CoreEdge(edge.id)) } else { Err(IdentityError::NotCore) }
        })
    }
}
