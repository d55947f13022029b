//! Who may do what with a server: the one place that every door asks. Today owners may; shares join here.

use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::Grant;
use thiserror::Error;

use crate::domain::server::Server;
use crate::store::{AsStoreError, Conn, StoreError, servers};

/// Why a user may not.
#[derive(Debug, Error)]
pub(crate) enum GrantError {
    #[error("there is no such server")]
    NotFound,
    #[error("the user has no right to this server")]
    Denied,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for GrantError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// What `user` may do with a server.
pub(crate) async fn find(conn: &mut Conn, user: UserId, server: ServerId) -> Result<(Grant, Server), GrantError> {
    let server = servers::find(conn, server).await?.ok_or(GrantError::NotFound)?;
    if server.owner == user { Ok((Grant::owner(user, server.id), server)) } else { Err(GrantError::Denied) }
}

/// The server, if it is the user's own: what a share never gives.
pub(crate) async fn owned(conn: &mut Conn, user: UserId, server: ServerId) -> Result<Server, GrantError> {
    let server = servers::find(conn, server).await?.ok_or(GrantError::NotFound)?;
    if server.owner == user { Ok(server) } else { Err(GrantError::Denied) }
}
