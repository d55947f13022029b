//! An edge says what it carries: the lease.

use axum::Json;
use axum::extract::State;
use phlix_protocol::uplink::{PresenceReply, PresenceReport};

use super::asking::Asking;
use super::refusal::Refusal;
use crate::app::{App, edges};

pub(super) async fn report(State(app): State<App>, asking: Asking) -> Result<Json<PresenceReply>, Refusal> {
    let report: PresenceReport = asking.body()?;
    Ok(Json(edges::report(&app, &asking.edge, &report).await?))
}
