//! `phlix smoke jwt`: one token of each kind, signed with the keys there are, verified as its reader verifies it, and refused by the
//! readers of the others.

use phlix_protocol::ids::{EdgeId, ServerId, SessionId, TokenId, UserId};
use phlix_protocol::keys::{KeySet, SigningKey};
use phlix_protocol::token::{
    self, Cnf, EdgeList, Enrollment, HubClaims, ISSUER, Libraries, Limits, Permission, Scope, TokenError, TunnelTicket,
    USE_CLIENT, ViewerTicket,
};
use thiserror::Error;

use super::App;
use super::keys::KeysError;
use crate::domain::key::Purpose;
use crate::domain::user_token::{self, Kind, UserClaims, UserTokenError};
use crate::random;

/// What went wrong with which kind.
#[derive(Debug, Error)]
pub(crate) enum SmokeError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("{kind}: {cause}")]
    Refused { kind: &'static str, cause: TokenError },
    #[error("{kind}: {cause}")]
    UserToken { kind: &'static str, cause: UserTokenError },
    #[error("{kind}: was taken by the reader of {reader}")]
    Confused { kind: &'static str, reader: &'static str },
}

/// Signs and verifies; answers the kinds that were tried.
pub(crate) fn tokens(app: &App) -> Result<Vec<&'static str>, SmokeError> {
    let now = app.clock.now();
    let until = now.plus(std::time::Duration::from_secs(60));
    let (iat, exp) = (now.seconds(), until.seconds());
    let (user, session, server) =
        (UserId::new(random::uuid()), SessionId::new(random::uuid()), ServerId::new(random::uuid()));
    let secret = app.config.jwt_secret.bytes();
    let mut tried = Vec::new();

    for (kind, name, other) in
        [(Kind::Access, "access token", Kind::Refresh), (Kind::Refresh, "refresh token", Kind::Access)]
    {
        let token = user_token::sign(&UserClaims::new(kind, user, session, now, until), secret);
        user_token::verify(&token, kind, secret, now).map_err(|cause| SmokeError::UserToken { kind: name, cause })?;
        if user_token::verify(&token, other, secret, now).is_ok() {
            return Err(SmokeError::Confused { kind: name, reader: "the other user token" });
        }
        tried.push(name);
    }

    let enrolling = app.keys.signer(Purpose::Enrollment, now)?;
    let relaying = app.keys.signer(Purpose::Relay, now)?;
    let (enrollments, tickets) = (app.keys.set(Purpose::Enrollment, now), app.keys.set(Purpose::Relay, now));
    // Any key will do for the server's.
    let cnf = Cnf { jwk: SigningKey::from_seed(&random::bytes()).public() };
    let jti = || TokenId::new(random::uuid());

    let enrollment = |cnf| Enrollment {
        iss: ISSUER.to_owned(),
        sub: server,
        aud: Enrollment::AUD.to_owned(),
        exp,
        iat,
        kid: enrolling.kid(),
        hub_base_url: app.config.base_url().to_owned(),
        server_id: server,
        cnf,
        generation: None,
    };
    let viewer = |edge, usage| ViewerTicket {
        iss: ISSUER.to_owned(),
        sub: user,
        aud: ViewerTicket::AUD.to_owned(),
        iat,
        exp,
        jti: jti(),
        sid: session,
        server_id: server,
        share_id: None,
        libs: Libraries::default(),
        perm: Permission::ReadWrite,
        scope: Scope::Name,
        host: "smoke.hub.localhost".parse().ok(),
        edge,
        usage,
        rate: 0,
        streams: 0,
        rev: 0,
    };
    let tunnel = TunnelTicket {
        iss: ISSUER.to_owned(),
        sub: server,
        aud: TunnelTicket::AUD.to_owned(),
        iat,
        exp,
        jti: jti(),
        server_id: server,
        cnf,
        generation: 1,
        names: Vec::new(),
        limits: Limits { streams: 1, header_bytes: 1 },
        rev: 0,
    };
    let edges = EdgeList { iss: ISSUER.to_owned(), aud: EdgeList::AUD.to_owned(), iat, exp, edges: Vec::new() };

    let mut try_one = |kind, result: Result<(), SmokeError>| result.map(|()| tried.push(kind));
    try_one("enrollment", check(&enrollment(None), "enrollment", &enrolling, &enrollments, &tickets, iat))?;
    try_one(
        "native enrollment",
        check(&enrollment(Some(cnf)), "native enrollment", &enrolling, &enrollments, &tickets, iat),
    )?;
    try_one("tunnel ticket", check(&tunnel, "tunnel ticket", &relaying, &tickets, &enrollments, iat))?;
    let held_by_edge = viewer(Some(EdgeId::new(random::uuid())), None);
    try_one("viewer ticket", check(&held_by_edge, "viewer ticket", &relaying, &tickets, &enrollments, iat))?;
    let held_by_client = viewer(None, Some(USE_CLIENT.to_owned()));
    try_one("client ticket", check(&held_by_client, "client ticket", &relaying, &tickets, &enrollments, iat))?;
    try_one("edge list", check(&edges, "edge list", &relaying, &tickets, &enrollments, iat))?;
    Ok(tried)
}

/// Its own reader takes it, and nobody else does.
fn check<C: HubClaims>(
    claims: &C,
    kind: &'static str,
    key: &SigningKey,
    keys: &KeySet,
    others: &KeySet,
    now: i64,
) -> Result<(), SmokeError> {
    let text = token::sign(claims, key);
    token::verify::<C>(&text, keys, now).map_err(|cause| SmokeError::Refused { kind, cause })?;
    let confused = |reader| SmokeError::Confused { kind, reader };
    if token::verify::<C>(&text, others, now).is_ok() {
        return Err(confused("the other key set"));
    }
    let takes = [
        (Enrollment::TYP, "enrollments", token::verify::<Enrollment>(&text, keys, now).is_ok()),
        (TunnelTicket::TYP, "tunnel tickets", token::verify::<TunnelTicket>(&text, keys, now).is_ok()),
        (ViewerTicket::TYP, "viewer tickets", token::verify::<ViewerTicket>(&text, keys, now).is_ok()),
        (EdgeList::TYP, "edge lists", token::verify::<EdgeList>(&text, keys, now).is_ok()),
    ];
    match takes.into_iter().find(|(typ, _, taken)| *taken && *typ != C::TYP) {
        Some((_, reader, _)) => Err(confused(reader)),
        None => Ok(()),
    }
}
