//! The deeds: one function each, called by `http/`, `edges/` and `jobs/`. Only this room decides what goes together in a
//! transaction.

use std::sync::Arc;

use prometheus::Registry;

use crate::clock::Clock;
use crate::config::Config;
use crate::store::Db;

pub(crate) mod accounts;
pub(crate) mod bulletin;
pub(crate) mod claims;
pub(crate) mod edge_identity;
pub(crate) mod edges;
pub(crate) mod enrollments;
pub(crate) mod grants;
pub(crate) mod keys;
pub(crate) mod legacy_tunnels;
pub(crate) mod maintenance;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod notices;
pub(crate) mod passwords;
pub(crate) mod picks;
pub(crate) mod readiness;
pub(crate) mod relay_tokens;
pub(crate) mod revocations;
pub(crate) mod seal;
pub(crate) mod servers;
pub(crate) mod sessions;
pub(crate) mod smoke;
pub(crate) mod subdomains;
pub(crate) mod tickets;

pub(crate) use crate::store::StoreError;

/// What every handler gets.
pub(crate) type App = Arc<Hub>;

/// One replica of the control plane: what it knows beside the database.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    pub(crate) sealer: seal::Sealer,
    pub(crate) keys: keys::Keys,
    pub(crate) hasher: passwords::Hasher,
    pub(crate) sign_ins: sessions::SignIns,
    pub(crate) jobs: maintenance::Pulse,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) bulletin: bulletin::Bulletin,
    pub(crate) edges: Arc<edges::Edges>,
    pub(crate) edge_auth: Box<dyn edge_identity::EdgeAuth>,
}

/// Why the control plane can't start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AssembleError {
    /// See [`keys::KeysError`].
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// The settings of password hashing are impossible.
    #[error("the settings of password hashing are impossible")]
    Hashing,
}

impl Hub {
    /// Puts a replica together on a migrated database. Makes the signing keys where there are none. Edges are known by their
    /// keys, unless a test brings another way.
    pub(crate) async fn assemble(
        config: Config,
        db: Db,
        edge_auth: Option<Box<dyn edge_identity::EdgeAuth>>,
    ) -> Result<App, AssembleError> {
        let clock = config.clock.clone();
        let sealer = seal::Sealer::new(&config.seal_key);
        let keys = keys::Keys::open(&db, &sealer, &config.lives, clock.now()).await?;
        let hasher = passwords::Hasher::new(config.hashing).map_err(|_| AssembleError::Hashing)?;
        let sign_ins = sessions::SignIns::default();
        let jobs = maintenance::Pulse::new(clock.now());
        let metrics = metrics::Metrics::new(Registry::new());
        let bulletin = bulletin::Bulletin::new();
        let edges = Arc::new(edges::Edges::new(db.clone(), clock.clone()));
        let edge_auth = edge_auth.unwrap_or_else(|| Box::new(edge_identity::ByKey(edges.clone())));
        Ok(Arc::new(Self {
            config,
            clock,
            db,
            sealer,
            keys,
            hasher,
            sign_ins,
            jobs,
            metrics,
            bulletin,
            edges,
            edge_auth,
        }))
    }
}
