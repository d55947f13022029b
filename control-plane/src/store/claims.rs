//! Pending claims: `claims`.

use phlix_protocol::b64;
use phlix_protocol::ids::{ClaimId, ServerId, UserId};
use phlix_protocol::keys::PublicKey;
use sha2::{Digest as _, Sha256};

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::claim::{Applicant, Claim, ClaimCode, Redeemed, Stage};
use crate::domain::server::{key_of, key_text, kind_of, kind_word};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO claims (id_hash, code, server_name, kind, public_key, version, hostname_candidates, \
              requester_address, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    FIND = "SELECT code, server_name, kind, public_key, version, hostname_candidates, requester_address, created_at, \
            expires_at, claimed_by, claimed_at, server_id, generation, delivered_at FROM claims WHERE id_hash = ?";
    FIND_BY_CODE = "SELECT code, server_name, kind, public_key, version, hostname_candidates, requester_address, created_at, \
                    expires_at, claimed_by, claimed_at, server_id, generation, delivered_at FROM claims WHERE code = ?";
    PENDING_OF_KEY = "SELECT code, server_name, kind, public_key, version, hostname_candidates, requester_address, \
                      created_at, expires_at, claimed_by, claimed_at, server_id, generation, delivered_at FROM claims \
                      WHERE public_key = ? AND kind = 'generic' AND claimed_by IS NULL AND expires_at > ? \
                      ORDER BY created_at DESC LIMIT 1";
    HAND_OVER = "UPDATE claims SET id_hash = ?, requester_address = ? \
                 WHERE code = ? AND claimed_by IS NULL AND expires_at > ?";
    REDEEM = "UPDATE claims SET claimed_by = ?, claimed_at = ?, server_id = ?, generation = ? \
              WHERE code = ? AND claimed_by IS NULL AND expires_at > ?";
    DELIVER = "UPDATE claims SET delivered_at = ? WHERE id_hash = ? AND delivered_at IS NULL";
    SWEEP = "DELETE FROM claims WHERE expires_at <= ? AND (claimed_at IS NULL OR claimed_at <= ?)";
}

type Row = (
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    i64,
    i64,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
);

/// Opens a claim; `false` when its code is taken.
pub(crate) async fn insert(conn: &mut Conn, id: ClaimId, claim: &Claim) -> Result<bool, StoreError> {
    let added = sqlx::query(INSERT)
        .bind(hash(id))
        .bind(claim.code.to_string())
        .bind(&claim.applicant.name)
        .bind(kind_word(claim.applicant.kind))
        .bind(key_text(&claim.applicant.key))
        .bind(&claim.applicant.version)
        .bind(super::json(&claim.applicant.hostname_candidates))
        .bind(&claim.requester_address)
        .bind(claim.created_at.millis())
        .bind(claim.expires_at.millis())
        .execute(conn)
        .await;
    match added {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The claim of a polling server.
pub(crate) async fn find(conn: &mut Conn, id: ClaimId) -> Result<Option<Claim>, StoreError> {
    let row: Option<Row> = sqlx::query_as(FIND).bind(hash(id)).fetch_optional(conn).await?;
    row.map(claim).transpose()
}

/// The claim with this code, whatever its stage.
pub(crate) async fn find_by_code(conn: &mut Conn, code: ClaimCode) -> Result<Option<Claim>, StoreError> {
    let row: Option<Row> = sqlx::query_as(FIND_BY_CODE).bind(code.to_string()).fetch_optional(conn).await?;
    row.map(claim).transpose()
}

/// The newest claim that waits for this proven key.
pub(crate) async fn pending_of_key(
    conn: &mut Conn,
    key: &PublicKey,
    now: Timestamp,
) -> Result<Option<Claim>, StoreError> {
    let query = sqlx::query_as(PENDING_OF_KEY).bind(key_text(key)).bind(now.millis());
    let row: Option<Row> = query.fetch_optional(conn).await?;
    row.map(claim).transpose()
}

/// Gives a pending claim a new secret id, since only the hash of the old one is known; `false` when it waits no more.
pub(crate) async fn hand_over(
    conn: &mut Conn,
    code: ClaimCode,
    id: ClaimId,
    requester_address: &str,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let query = sqlx::query(HAND_OVER).bind(hash(id)).bind(requester_address).bind(code.to_string()).bind(now.millis());
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// Of any number of users that redeem one code at the same time one gets `true`.
pub(crate) async fn redeem(
    conn: &mut Conn,
    code: ClaimCode,
    by: UserId,
    server: ServerId,
    generation: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let redeemed = sqlx::query(REDEEM)
        .bind(by.to_string())
        .bind(now.millis())
        .bind(server.to_string())
        .bind(i64::try_from(generation).unwrap_or(i64::MAX))
        .bind(code.to_string())
        .bind(now.millis())
        .execute(conn)
        .await?;
    Ok(redeemed.rows_affected() == 1)
}

/// Starts the time for which a delivered enrollment may be read again; a second delivery does not start it anew.
pub(crate) async fn deliver(conn: &mut Conn, id: ClaimId, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(DELIVER).bind(now.millis()).bind(hash(id)).execute(conn).await?;
    Ok(())
}

/// Drops claims that ended before `before`.
pub(crate) async fn sweep(conn: &mut Conn, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(before.millis()).bind(before.millis()).execute(conn).await?.rows_affected())
}

fn hash(id: ClaimId) -> String {
    b64::encode(Sha256::digest(id.to_string().as_bytes()))
}

fn claim(row: Row) -> Result<Claim, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "claims", column };
    let (
        code,
        name,
        kind,
        key,
        version,
        candidates,
        requester_address,
        created,
        expires,
        by,
        at,
        server,
        generation,
        delivered,
    ) = row;
    let stage = match (by, at, server, generation) {
        (None, ..) => Stage::Pending,
        (Some(by), Some(at), Some(server), Some(generation)) => Stage::Redeemed(Redeemed {
            by: super::id(&by, "claims", "claimed_by")?,
            at: Timestamp::from_millis(at),
            server: super::id(&server, "claims", "server_id")?,
            generation: u64::try_from(generation).map_err(|_| corrupt("generation"))?,
            delivered_at: delivered.map(Timestamp::from_millis),
        }),
        _ => return Err(corrupt("server_id")),
    };
    Ok(Claim {
        code: ClaimCode::parse(&code).ok_or(corrupt("code"))?,
        applicant: Applicant {
            name,
            version,
            key: key_of(&key).ok_or(corrupt("public_key"))?,
            hostname_candidates: super::list(&candidates, "claims", "hostname_candidates")?,
            kind: kind_of(&kind).ok_or(corrupt("kind"))?,
        },
        requester_address,
        created_at: Timestamp::from_millis(created),
        expires_at: Timestamp::from_millis(expires),
        stage,
    })
}
