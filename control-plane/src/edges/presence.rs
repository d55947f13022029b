//! An edge says what it carries: the lease.

use axum::Json;
use axum::extract::State;
use phlix_protocol::uplink::{PresenceReply, PresenceReport};

use super::asking::Asking;
use crate::app::{App, edges};
use crate::http::ApiError;

pub(super) async fn report(State(app): State<App>, asking: Asking) -> Result<Json<PresenceReply>, ApiError> {
    let report: PresenceReport = asking.body()?;
    Ok(Json(edges::report(&app, &asking.edge, &report).await?))
}
