//! Can this replica work? It needs the database, at this version's shape, and its keys.

use std::time::Duration;

use super::App;
use crate::domain::key::Purpose;

/// What is wrong, in words for operators; `None` where nothing is.
pub(crate) struct Readiness {
    pub(crate) database: Option<String>,
    pub(crate) keys: Option<String>,
}

impl Readiness {
    pub(crate) fn is_ready(&self) -> bool {
        self.database.is_none() && self.keys.is_none()
    }
}

/// A probe asks every few seconds: it gets its answer while the database thinks about it.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn check(app: &App) -> Readiness {
    let database = match tokio::time::timeout(PATIENCE, app.db.check_schema()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the database does not answer".to_owned()),
    };
    let now = app.clock.now();
    let keys = Purpose::ALL.into_iter().find_map(|purpose| app.keys.signer(purpose, now).err());
    Readiness { database, keys: keys.map(|error| error.to_string()) }
}
