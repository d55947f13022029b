//! What the database keeps as text: ids, and lists as JSON.

use std::str::FromStr;

use super::StoreError;

/// An id of ours.
pub(super) fn id<T: FromStr>(text: &str, table: &'static str, column: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { table, column })
}

/// A list as JSON.
pub(super) fn json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

/// The list of a JSON text.
pub(super) fn list(text: &str, table: &'static str, column: &'static str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { table, column })
}
