//! Relay tokens: a client app asks for one and shows it at the mount of a Phlix server's tunnel (upstream-api s.2.4).

use std::time::Duration;

use phlix_protocol::ids::{ServerId, TokenId, UserId};
use phlix_protocol::uplink::Selector;
use thiserror::Error;

use super::App;
use super::grants::{self, GrantError};
use super::revocations::revoke;
use super::sessions::SignedIn;
use crate::random;
use crate::store::rates::{self, Attempt};
use crate::store::relay_tokens::{self, RelayToken};
use crate::store::{AsStoreError, StoreError};
use crate::timestamp::Timestamp;

/// A fresh token, told once. Its `Debug` is silent.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires_at: Timestamp,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issued(..)")
    }
}

/// Why there is none.
#[derive(Debug, Error)]
pub(crate) enum RelayTokenError {
    #[error("too many relay tokens")]
    TooMany(Duration),
    #[error(transparent)]
    Grant(#[from] GrantError),
}

impl From<StoreError> for RelayTokenError {
    fn from(error: StoreError) -> Self {
        Self::Grant(error.into())
    }
}

impl AsStoreError for RelayTokenError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Grant(error) => error.as_store_error(),
            Self::TooMany(_) => None,
        }
    }
}

/// 256 random bits in hexadecimal: what fits a header and a subprotocol in any client.
fn secret() -> String {
    crate::hex(&random::bytes::<32>())
}

/// The shape of such a token, so that nothing else is looked up.
pub(super) fn is_shaped(token: &str) -> bool {
    token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A token for the owner's own server, good for an hour, and for the sign-in that asks.
pub(crate) async fn issue(app: &App, who: &SignedIn, server: ServerId) -> Result<Issued, RelayTokenError> {
    let now = app.clock.now();
    let secret = secret();
    let (text, key) = (&secret, &format!("relay-token:{}", who.user));
    let expires_at = now.plus(app.config.lives.relay_token);
    let (user, session) = (who.user, who.session);
    let token = RelayToken { id: TokenId::new(random::uuid()), user, server, session, expires_at };
    app.db
        .transact(|mut tx| async move {
            grants::owned(&mut tx, user, server).await?;
            let attempt = rates::hit(&mut tx, key, app.config.limits.relay_token, now).await?;
            if attempt == Attempt::Allowed {
                relay_tokens::insert(&mut tx, text, &token, now).await?;
            }
            tx.commit().await?;
            match attempt {
                Attempt::Allowed => Ok(()),
                Attempt::Refused { retry_after } => Err(RelayTokenError::TooMany(retry_after)),
            }
        })
        .await?;
    Ok(Issued { token: secret, expires_at })
}

/// Ends one of the user's tokens for a server, or all of them; what was opened by them ends within the bulletin's time.
pub(crate) async fn withdraw(
    app: &App,
    user: UserId,
    server: ServerId,
    only: Option<&str>,
) -> Result<(), RelayTokenError> {
    let now = app.clock.now();
    let ended = app
        .db
        .transact(|mut tx| async move {
            grants::owned(&mut tx, user, server).await?;
            let tokens = match only {
                None => relay_tokens::good(&mut tx, user, server, now).await?,
                Some(shown) => {
                    let found = relay_tokens::find(&mut tx, shown, now).await?;
                    found.into_iter().filter(|token| token.user == user && token.server == server).collect()
                }
            };
            let mut ended = 0;
            for token in tokens {
                if relay_tokens::revoke(&mut tx, token.id, now).await? {
                    ended += 1;
                    revoke(&mut tx, Selector::Jti(token.id), &app.config.lives, now).await?;
                }
            }
            tx.commit().await?;
            Ok::<_, RelayTokenError>(ended)
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server, user.id = %user, ended }, "relay tokens were withdrawn");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_shape_and_is_never_the_same() {
        let (one, other) = (secret(), secret());
        assert!(is_shaped(&one) && is_shaped(&other));
        assert_ne!(one, other);
        for bad in ["", "abc", &one[1..], &format!("{one}0"), &format!("g{}", &one[1..])] {
            assert!(!is_shaped(bad), "{bad}");
        }
    }
}
