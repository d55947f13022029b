//! Claiming: a server asks for a code, a user types it, the server fetches its enrollment (upstream-api s.2.2, trust s.7).

use std::time::Duration;

use phlix_protocol::ids::{ClaimId, ServerId, UserId};
use phlix_protocol::keys::PublicKey;
use phlix_protocol::native::proof::claim_input;
use phlix_protocol::uplink::{Change, ServerKind};
use thiserror::Error;
use url::{Host, Url};

use super::App;
use super::enrollments::{self, Minted};
use super::keys::KeysError;
use super::subdomains;
use crate::domain::claim::{Applicant, Claim, ClaimCode, Outcome, Stage};
use crate::domain::server::{Credentials, Server};
use crate::random;
use crate::store::rates::{self, Attempt};
use crate::store::{AsStoreError, Conn, StoreError, Tx, bulletin, claims, names, servers};
use crate::timestamp::Timestamp;

/// How far a proof's time may be from the hub's.
const PROOF_SKEW: Duration = Duration::from_secs(300);
/// How many codes are tried: with a thousand pending ones the second is taken once in 10^9 times.
const CODES: usize = 4;

/// What a server shows to be native.
#[derive(Clone, Debug)]
pub(crate) struct ClaimProof {
    /// Unix seconds.
    pub(crate) time: i64,
    pub(crate) signature: Vec<u8>,
}

/// An opened claim, as the server is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) code: ClaimCode,
    pub(crate) id: ClaimId,
    pub(crate) expires_in: Duration,
}

/// Why no claim was opened.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    #[error("too many claims")]
    TooMany(Duration),
    #[error("the proof's time is more than five minutes off")]
    StaleProof,
    #[error("the proof is not this key's for this hub")]
    BadProof,
    #[error("no free code was found")]
    NoCode,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for OpenError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// Opens a claim for a server that waits, or hands its pending one over again where it proved its key.
pub(crate) async fn open(
    app: &App,
    applicant: Applicant,
    proof: Option<ClaimProof>,
    address: &str,
    place: &str,
) -> Result<Opened, OpenError> {
    let now = app.clock.now();
    let limits = &app.config.limits;
    let mut conn = app.db.write().await?;
    // The narrow limit first: what it refuses does not use up everybody's.
    for (key, rate) in
        [(format!("claim-new:{place}"), limits.claim_new), ("claim-new:*".to_owned(), limits.claim_new_total)]
    {
        if let Attempt::Refused { retry_after } = rates::hit(&mut conn, &key, rate, now).await? {
            return Err(OpenError::TooMany(retry_after));
        }
    }
    drop(conn);

    let kind = match &proof {
        None => ServerKind::Phlix,
        Some(proof) => {
            check_proof(&app.config.public_url, &applicant.key, proof, now)?;
            ServerKind::Generic
        }
    };
    let applicant = Applicant { kind, ..applicant };
    let applicant = &applicant;
    let id = ClaimId::new(random::uuid());
    app.db
        .transact(|mut tx| async move {
            let again = reuse(&mut tx, applicant, id, address, now).await?;
            let opened = match again {
                Some(opened) => opened,
                None => insert(&mut tx, applicant, id, address, now, app.config.lives.claim).await?,
            };
            tx.commit().await?;
            Ok(opened)
        })
        .await
}

/// A key's pending claim goes on, but only for who proved the key: it is no secret.
async fn reuse(
    tx: &mut Tx,
    applicant: &Applicant,
    id: ClaimId,
    address: &str,
    now: Timestamp,
) -> Result<Option<Opened>, StoreError> {
    if applicant.kind != ServerKind::Generic {
        return Ok(None);
    }
    let Some(pending) = claims::pending_of_key(tx, &applicant.key, now).await? else { return Ok(None) };
    let goes_on = claims::hand_over(tx, pending.code, id, address, now).await?;
    Ok(goes_on.then(|| Opened { code: pending.code, id, expires_in: pending.expires_at.since(now) }))
}

async fn insert(
    tx: &mut Tx,
    applicant: &Applicant,
    id: ClaimId,
    address: &str,
    now: Timestamp,
    life: Duration,
) -> Result<Opened, OpenError> {
    for _ in 0..CODES {
        let code = ClaimCode::from_random(random::bytes());
        let claim = Claim {
            code,
            applicant: applicant.clone(),
            requester_address: address.to_owned(),
            created_at: now,
            expires_at: now.plus(life),
            stage: Stage::Pending,
        };
        if claims::insert(tx, id, &claim).await? {
            return Ok(Opened { code, id, expires_in: life });
        }
    }
    Err(OpenError::NoCode)
}

/// The proof covers the origin that the server dialled: the hub's own, or while that is on loopback any spelling of it.
fn check_proof(hub: &Url, key: &PublicKey, proof: &ClaimProof, now: Timestamp) -> Result<(), OpenError> {
    let time = Timestamp::from_seconds(proof.time);
    if now.since(time) > PROOF_SKEW || time.since(now) > PROOF_SKEW {
        return Err(OpenError::StaleProof);
    }
    let proven = |origin: String| key.verifies(&claim_input(&origin, proof.time), &proof.signature);
    if origins(hub).into_iter().any(proven) { Ok(()) } else { Err(OpenError::BadProof) }
}

fn origins(hub: &Url) -> Vec<String> {
    let own = hub.origin().ascii_serialization();
    let is_loopback = match hub.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if !is_loopback {
        return vec![own];
    }
    let port = hub.port().map(|port| format!(":{port}")).unwrap_or_default();
    ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{}://{host}{port}", hub.scheme())).into()
}

/// What a polling server is told.
#[derive(Debug)]
pub(crate) enum Polled {
    Pending,
    Expired,
    Claimed { server: ServerId, enrollment: Minted, owner_name: String },
}

/// Tells a waiting server how its claim is. The first `Claimed` starts the time in which it may be read again.
pub(crate) async fn poll(app: &App, id: ClaimId) -> Result<Polled, KeysError> {
    let now = app.clock.now();
    let lives = &app.config.lives;
    let mut conn = app.db.read().await?;
    let Some(claim) = claims::find(&mut conn, id).await? else { return Ok(Polled::Expired) };
    let redeemed = match claim.outcome(now, lives.claim, lives.claim_delivery) {
        Outcome::Pending => return Ok(Polled::Pending),
        Outcome::Expired => return Ok(Polled::Expired),
        Outcome::Claimed(redeemed) => redeemed,
    };
    // The server may be gone again, or claimed once more: then this claim opens nothing.
    let server = servers::find(&mut conn, redeemed.server).await?;
    let owner_name = servers::owner_name(&mut conn, redeemed.server).await?;
    let (Some(server), Some(owner_name)) = (server, owner_name) else { return Ok(Polled::Expired) };
    if server.owner != redeemed.by || redeemed.generation < server.credentials.least {
        return Ok(Polled::Expired);
    }
    drop(conn);
    // Signed before it counts as delivered: without a key the server asks again. The token itself is kept nowhere.
    let enrollment = enrollments::mint(app, &server, redeemed.generation, now)?;
    let mut conn = app.db.write().await?;
    claims::deliver(&mut conn, id, now).await?;
    Ok(Polled::Claimed { server: server.id, enrollment, owner_name })
}

/// Why a code opens nothing.
#[derive(Debug, Error)]
pub(crate) enum RedeemError {
    #[error("no such code")]
    NotFound,
    #[error("the code has expired")]
    Expired,
    #[error("the code was used")]
    AlreadyClaimed,
    #[error("the user has as many servers as allowed")]
    TooManyServers,
    #[error("the user is gone")]
    NoUser,
    #[error("no free name was found")]
    NoName,
    #[error("too many guesses")]
    TooManyGuesses(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for RedeemError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// Who guesses: counted before the code is looked at, given back when it was right.
///
/// A wrong code is no code, so it can't be burnt; what holds is: 10 guesses a user, 20 an address in ten minutes, 1000 an hour in
/// all, against at most 1000 live codes among 2^40.
//= promises T4
struct Guess {
    keys: [String; 3],
}

impl Guess {
    async fn count(app: &App, conn: &mut Conn, user: UserId, place: &str, now: Timestamp) -> Result<Self, RedeemError> {
        let limits = &app.config.limits;
        let keys = [format!("claim-guess:{user}"), format!("claim-guess:{place}"), "claim-guess:*".to_owned()];
        let rates = [limits.claim_guess_user, limits.claim_guess_address, limits.claim_guess_total];
        for (key, rate) in keys.iter().zip(rates) {
            if let Attempt::Refused { retry_after } = rates::hit(conn, key, rate, now).await? {
                return Err(RedeemError::TooManyGuesses(retry_after));
            }
        }
        Ok(Self { keys })
    }

    async fn was_right(self, conn: &mut Conn) -> Result<(), StoreError> {
        for key in &self.keys {
            rates::give_back(conn, key).await?;
        }
        Ok(())
    }
}

/// Shows a signed-in user whose server it is before they claim it.
pub(crate) async fn preview(app: &App, user: UserId, place: &str, code: &str) -> Result<Claim, RedeemError> {
    let now = app.clock.now();
    let mut conn = app.db.write().await?;
    let guess = Guess::count(app, &mut conn, user, place, now).await?;
    let code = ClaimCode::parse(code).ok_or(RedeemError::NotFound)?;
    let claim = claims::find_by_code(&mut conn, code).await?.ok_or(RedeemError::NotFound)?;
    match claim.stage {
        Stage::Redeemed(_) => Err(RedeemError::AlreadyClaimed),
        Stage::Pending if now >= claim.expires_at => Err(RedeemError::Expired),
        Stage::Pending => {
            guess.was_right(&mut conn).await?;
            Ok(claim)
        }
    }
}

/// A user redeems a code: the server is theirs. Of two who redeem it at once one gets it.
pub(crate) async fn redeem(app: &App, user: UserId, place: &str, code: &str) -> Result<Server, RedeemError> {
    let now = app.clock.now();
    let mut conn = app.db.write().await?;
    let guess = Guess::count(app, &mut conn, user, place, now).await?;
    drop(conn);
    let code = ClaimCode::parse(code).ok_or(RedeemError::NotFound)?;
    let id = ServerId::new(random::uuid());
    let server = app
        .db
        .transact(|mut tx| async move {
            let server = redeem_in(app, &mut tx, user, code, id, now).await?;
            tx.commit().await?;
            Ok::<_, RedeemError>(server)
        })
        .await?;
    app.bulletin.poke();
    let mut conn = app.db.write().await?;
    guess.was_right(&mut conn).await?;
    tracing::info!(target: "audit", { server.id = %server.id, user.id = %user }, "a server was claimed");
    Ok(server)
}

async fn redeem_in(
    app: &App,
    tx: &mut Tx,
    user: UserId,
    code: ClaimCode,
    id: ServerId,
    now: Timestamp,
) -> Result<Server, RedeemError> {
    let claim = claims::find_by_code(tx, code).await?.ok_or(RedeemError::NotFound)?;
    match claim.stage {
        Stage::Redeemed(_) => return Err(RedeemError::AlreadyClaimed),
        Stage::Pending if now >= claim.expires_at => return Err(RedeemError::Expired),
        Stage::Pending => {}
    }
    if !servers::lock_owner(tx, user).await? {
        return Err(RedeemError::NoUser);
    }
    let applicant = &claim.applicant;
    let server = match servers::find_twin(tx, user, &applicant.key, applicant.kind).await? {
        Some(known) => pair_again(tx, known, applicant, now).await?,
        None => add(app, tx, user, applicant, id, now).await?,
    };
    // This statement decides; who loses leaves nothing behind.
    if !claims::redeem(tx, code, user, server.id, server.credentials.newest, now).await? {
        return Err(RedeemError::AlreadyClaimed);
    }
    let hosts = names::of_server(tx, server.id).await?.into_iter().map(|name| name.host).collect();
    bulletin::publish(tx, &Change::Route { server_id: server.id, hosts }, now).await?;
    Ok(server)
}

/// The same key and the same owner: the same server. What its earlier credentials opened is over.
async fn pair_again(tx: &mut Tx, known: Server, applicant: &Applicant, now: Timestamp) -> Result<Server, RedeemError> {
    let Applicant { name, version, hostname_candidates, .. } = applicant.clone();
    servers::pair_again(tx, known.id, &name, &version, &hostname_candidates, now).await?;
    let credentials = match known.kind {
        // Bearer enrollments have no generation.
        ServerKind::Phlix => known.credentials,
        ServerKind::Generic => enrollments::roll_in(tx, known.id, now).await?.unwrap_or(known.credentials),
    };
    Ok(Server { name, version, hostname_candidates, credentials, last_seen_at: Some(now), ..known })
}

async fn add(
    app: &App,
    tx: &mut Tx,
    owner: UserId,
    applicant: &Applicant,
    id: ServerId,
    now: Timestamp,
) -> Result<Server, RedeemError> {
    let most = i64::from(app.config.limits.servers_per_user);
    // The owner's row is locked: nobody adds one in between.
    if most > 0 && servers::count_of_user(tx, owner).await? >= most {
        return Err(RedeemError::TooManyServers);
    }
    let server = Server {
        id,
        owner,
        name: applicant.name.clone(),
        kind: applicant.kind,
        key: applicant.key,
        version: applicant.version.clone(),
        hostname_candidates: applicant.hostname_candidates.clone(),
        guard_local_paths: true,
        credentials: Credentials { newest: 0, since: now, least: 0 },
        last_seen_at: Some(now),
        library_count: None,
        tls_since: None,
    };
    if !servers::insert(tx, &server, now).await? {
        return Err(RedeemError::AlreadyClaimed);
    }
    // Every server has a name from the start.
    subdomains::give(app, tx, id, owner, now).await?.ok_or(RedeemError::NoName)?;
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_hub_has_three_spellings_and_another_has_one() {
        let of = |text: &str| origins(&Url::parse(text).unwrap());
        assert_eq!(
            of("http://localhost:8800"),
            ["http://localhost:8800", "http://127.0.0.1:8800", "http://[::1]:8800"]
        );
        assert_eq!(of("http://127.0.0.1:8800/"), of("http://[::1]:8800"));
        assert_eq!(of("https://hub.example/"), ["https://hub.example"]);
        assert_eq!(of("http://localhost.example"), ["http://localhost.example"]);
    }
}
