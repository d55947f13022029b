//! Tickets that are no longer good: `revocations`.

use phlix_protocol::uplink::{Revocation, Selector};

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::timestamp::Timestamp;

statements! {
    WIDEN = "UPDATE revocations SET issued_until = ?, keep_until = ? WHERE selector = ? AND subject = ?";
    INSERT = "INSERT INTO revocations (issued_until, keep_until, selector, subject) VALUES (?, ?, ?, ?)";
    ALL_KEPT = "SELECT selector, subject, issued_until, keep_until FROM revocations WHERE keep_until > ?";
    SWEEP = "DELETE FROM revocations WHERE keep_until <= ?";
}

/// Adds a revocation. The hub's clock only goes forward, so the latest one of a subject covers the earlier ones.
pub(crate) async fn insert(conn: &mut Conn, revocation: &Revocation) -> Result<(), StoreError> {
    let (selector, subject) = columns(&revocation.selector);
    for text in [WIDEN, INSERT, WIDEN] {
        let query = sqlx::query(text).bind(revocation.issued_until).bind(revocation.keep_until);
        match query.bind(selector).bind(&subject).execute(&mut *conn).await {
            Ok(done) if done.rows_affected() == 1 => return Ok(()),
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Those that still cover a token that has not expired.
pub(crate) async fn kept(conn: &mut Conn, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
    let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(ALL_KEPT).bind(now.seconds()).fetch_all(conn).await?;
    let revocation = |(selector, subject, issued_until, keep_until): (String, String, i64, i64)| {
        Ok(Revocation { selector: selector_of(&selector, &subject)?, issued_until, keep_until })
    };
    rows.into_iter().map(revocation).collect()
}

/// Drops those that cover nothing any more.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(now.seconds()).execute(conn).await?.rows_affected())
}

fn columns(selector: &Selector) -> (&'static str, String) {
    match selector {
        Selector::Sub(id) => ("sub", id.to_string()),
        Selector::Sid(id) => ("sid", id.to_string()),
        Selector::Share(id) => ("share", id.to_string()),
        Selector::Server(id) => ("server", id.to_string()),
        Selector::Jti(id) => ("jti", id.to_string()),
        Selector::Edge(id) => ("edge", id.to_string()),
    }
}

fn selector_of(word: &str, subject: &str) -> Result<Selector, StoreError> {
    const TABLE: &str = "revocations";
    match word {
        "sub" => super::id(subject, TABLE, "subject").map(Selector::Sub),
        "sid" => super::id(subject, TABLE, "subject").map(Selector::Sid),
        "share" => super::id(subject, TABLE, "subject").map(Selector::Share),
        "server" => super::id(subject, TABLE, "subject").map(Selector::Server),
        "jti" => super::id(subject, TABLE, "subject").map(Selector::Jti),
        "edge" => super::id(subject, TABLE, "subject").map(Selector::Edge),
        _ => Err(StoreError::Corrupt { table: TABLE, column: "selector" }),
    }
}
