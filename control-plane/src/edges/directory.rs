//! Questions of the directory: who is behind a host, and tickets for viewers.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts as _, Path, Request, State};
use http::StatusCode;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;
use phlix_protocol::uplink::{
    Credential, ExchangeReply, ExchangeRequest, NameCode, RelayToken, RenewRequest, Route, ServerState, TicketReply,
};

use super::asking::Asking;
use super::refusal::Refusal;
use crate::app::tickets::{self, Signed, TicketError};
use crate::app::{App, names, sessions};

/// The host of the path. Whoever is behind it is told to edges only.
pub(super) struct Asked {
    host: Option<Hostname>,
}

impl FromRequest<App> for Asked {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let (mut head, body) = request.into_parts();
        let path = Path::<String>::from_request_parts(&mut head, app).await;
        let host = path.ok().and_then(|Path(host)| host.parse().ok());
        Asking::from_request(Request::from_parts(head, body), app).await?;
        Ok(Self { host })
    }
}

pub(super) async fn host(State(app): State<App>, asked: Asked) -> Result<Json<Route>, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "Not Found", "name.not_found");
    let host = asked.host.ok_or_else(unknown)?;
    names::route(&app, &host).await?.map(Json).ok_or_else(unknown)
}

/// A viewer's credential on the hub's own domain becomes a ticket. The errors are what the viewer gets.
pub(super) async fn exchange(State(app): State<App>, asking: Asking) -> Result<Json<ExchangeReply>, Refusal> {
    let ExchangeRequest { credential, server_id } = asking.body()?;
    if !asking.edge.is_core() {
        // Before the credential is looked at: what it is worth is not this edge's to know.
        return Err(TicketError::NotThisEdge.into());
    }
    let who = match &credential {
        Credential::Bearer(token) => sessions::authenticate_bearer(&app, token).await?,
        Credential::Session(cookie) => sessions::authenticate_cookie(&app, cookie).await?,
    };
    let exchanged = tickets::exchange(&app, &asking.edge, &who, server_id).await?;
    let Signed { ticket, expires_at } = exchanged.ticket;
    let url = exchanged.name.map(|name| name.url(app.config.names_port));
    Ok(Json(ExchangeReply {
        ticket,
        expires_at: expires_at.seconds(),
        kind: exchanged.kind,
        url,
        online: exchanged.online,
    }))
}

pub(super) async fn renew(State(app): State<App>, asking: Asking) -> Result<Json<TicketReply>, Refusal> {
    let RenewRequest { ticket } = asking.body()?;
    Ok(reply(tickets::renew(&app, &asking.edge, &ticket).await?))
}

/// A relay token that a client app showed at a mount.
pub(super) async fn relay_token(State(app): State<App>, asking: Asking) -> Result<Json<TicketReply>, Refusal> {
    let RelayToken { token, server_id } = asking.body()?;
    Ok(reply(tickets::mount(&app, &asking.edge, &token, server_id).await?))
}

/// The server of the path.
pub(super) struct AskedServer(Option<ServerId>);

impl FromRequest<App> for AskedServer {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let (mut head, body) = request.into_parts();
        let path = Path::<String>::from_request_parts(&mut head, app).await;
        let server = path.ok().and_then(|Path(id)| id.parse().ok());
        Asking::from_request(Request::from_parts(head, body), app).await?;
        Ok(Self(server))
    }
}

/// Does a server give signs of life?
pub(super) async fn state(
    State(app): State<App>,
    AskedServer(server): AskedServer,
) -> Result<Json<ServerState>, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "Server not found", "server.not_found");
    let online = tickets::is_online(&app, server.ok_or_else(unknown)?).await?.ok_or_else(unknown)?;
    Ok(Json(ServerState { online }))
}

pub(super) async fn name_code(State(app): State<App>, asking: Asking) -> Result<Json<TicketReply>, Refusal> {
    let NameCode { code, host, verifier } = asking.body()?;
    Ok(reply(names::redeem(&app, &asking.edge, &code, &host, &verifier).await?))
}

fn reply(Signed { ticket, expires_at }: Signed) -> Json<TicketReply> {
    Json(TicketReply { ticket, expires_at: expires_at.seconds() })
}
