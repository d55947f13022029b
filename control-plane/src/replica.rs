//! A running control plane: the database, the listener, the timers, and their end.

use std::net::SocketAddr;
use std::time::Duration;

use phlix_protocol::ids::EdgeId;
use phlix_protocol::keys::PublicKey;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::app::keys::KeysError;
use crate::app::{self, App, AssembleError, Hub};
use crate::config::Config;
use crate::edges;
use crate::http;
use crate::jobs;
use crate::store::{Db, MigrateError, StoreError};

/// How long requests that run may take to finish when the process is told to stop.
const FINISH: Duration = Duration::from_secs(10);

/// Why it can't run.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct StartError(#[source] Cause);

#[derive(Debug, Error)]
pub(crate) enum Cause {
    #[error("the database can't be opened: {0}")]
    Open(#[source] StoreError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("the settings of password hashing are impossible")]
    Hashing,
    #[error("can't listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
}

impl<E: Into<Cause>> From<E> for StartError {
    fn from(cause: E) -> Self {
        Self(cause.into())
    }
}

impl From<AssembleError> for Cause {
    fn from(error: AssembleError) -> Self {
        match error {
            AssembleError::Keys(error) => Self::Keys(error),
            AssembleError::Hashing => Self::Hashing,
        }
    }
}

/// Why the edge inside `phlix serve` could not be made known.
#[derive(Debug, Error)]
#[error("the built-in edge can't be made known: {0}")]
pub struct ApproveError(#[source] app::edges::AdmitError);

/// Why an edge could not be ended.
#[derive(Debug, Error)]
#[error("the edge can't be revoked: {0}")]
pub struct RevokeError(#[source] StoreError);

/// A running control plane, on the runtime that called [`ControlPlane::start`].
#[derive(Debug)]
pub struct ControlPlane {
    app: App,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<std::io::Result<()>>,
    timers: JoinSet<()>,
}

impl ControlPlane {
    /// Opens and migrates the database, reads or makes the keys, listens, starts the timers.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let db = open(&config).await?;
        db.migrate().await.map_err(Cause::from)?;
        let listener = TcpListener::bind(config.listen).await.map_err(|error| Cause::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| Cause::Listen(config.listen, error))?;
        let app = Hub::assemble(config, db, None).await.map_err(Cause::from)?;

        let stop = CancellationToken::new();
        let timers = jobs::start(&app, &stop);
        let router = http::router(app.clone()).merge(edges::router(app.clone()));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serve = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
        let server = tokio::spawn(serve.into_future());
        tracing::info!(address = %address, "the control plane listens");
        Ok(Self { app, address, stop, server, timers })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Makes the edge inside `phlix serve` known: a core edge, approved by the process that runs both. Before the edge
    /// registers, at each start.
    pub async fn approve_builtin_edge(&self, id: EdgeId, key: &PublicKey) -> Result<(), ApproveError> {
        app::edges::approve_builtin(&self.app, id, key).await.map_err(ApproveError)
    }

    /// Ends an edge at once: it is believed nothing any more, and the others are told. False when there is no such edge.
    pub async fn revoke_edge(&self, id: EdgeId) -> Result<bool, RevokeError> {
        app::edges::revoke_edge(&self.app, id).await.map_err(RevokeError)
    }

    /// The metrics in Prometheus' text format, for the process to export.
    pub fn metrics(&self) -> String {
        self.app.metrics.text()
    }

    /// The registry behind [`ControlPlane::metrics`].
    pub fn registry(&self) -> prometheus::Registry {
        self.app.metrics.registry().clone()
    }

    /// Lets what runs finish (10 s at most), then drops the rest.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(FINISH, &mut self.server).await.is_err() {
            tracing::warn!("requests were still running at the end of the control plane");
            self.server.abort();
        }
        self.timers.shutdown().await;
        // A connection that a request still holds does not keep the process.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.app.db.close()).await;
    }
}

/// Dropped without [`ControlPlane::shutdown`]: nothing of it goes on.
impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.abort();
    }
}

pub(crate) async fn open(config: &Config) -> Result<Db, StartError> {
    Db::connect(&config.database).await.map_err(|error| StartError(Cause::Open(error)))
}
