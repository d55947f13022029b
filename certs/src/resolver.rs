//! Picks the certificate of a handshake by its SNI, from a table that is swapped live.
//!
//! A handshake reads the table that is current when it begins; [`Resolver::swap`] puts a new one in
//! its place without a restart and without a pause (a renewed certificate, a new name).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Which certificate answers for which name.
///
/// An exact name comes before a wildcard; a wildcard stands for exactly one label. A name that is
/// not in the table ends the handshake, unless [`Table::for_unknown`] was set: showing somebody
/// else's certificate would tell the caller more than it asked.
#[derive(Debug, Clone, Default)]
pub struct Table {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// Keyed by what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    unknown: Option<Arc<CertifiedKey>>,
    without_sni: Option<Arc<CertifiedKey>>,
}

impl Table {
    /// An empty table: every handshake is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a name, `host.example` or `*.example`; the last key given for a name stands.
    #[must_use]
    pub fn with(mut self, name: &str, key: Arc<CertifiedKey>) -> Self {
        let name = normalise(name);
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.to_owned(), key),
            None => self.exact.insert(name, key),
        };
        self
    }

    /// The certificate for callers who name a host that is not in the table.
    #[must_use]
    pub fn for_unknown(mut self, key: Arc<CertifiedKey>) -> Self {
        self.unknown = Some(key);
        self
    }

    /// The certificate for callers who name no host (they dialled an IP address).
    #[must_use]
    pub fn without_sni(mut self, key: Arc<CertifiedKey>) -> Self {
        self.without_sni = Some(key);
        self
    }

    /// The certificate for an SNI.
    #[must_use]
    pub fn pick(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(sni) = sni else {
            return self.without_sni.clone();
        };
        let name = normalise(sni);
        self.exact
            .get(&name)
            .or_else(|| {
                let (label, parent) = name.split_once('.')?;
                (!label.is_empty()).then(|| self.wildcard.get(parent))?
            })
            .or(self.unknown.as_ref())
            .cloned()
    }
}

/// DNS names compare without case and without the root's dot.
fn normalise(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Hands rustls the certificate of the current [`Table`].
#[derive(Debug)]
pub struct Resolver {
    table: RwLock<Arc<Table>>,
}

impl Resolver {
    /// A resolver that starts with this table; shared, since rustls keeps one end and the owner
    /// swaps at the other.
    #[must_use]
    pub fn new(table: Table) -> Arc<Self> {
        Arc::new(Self { table: RwLock::new(Arc::new(table)) })
    }

    /// The table now in force.
    #[must_use]
    pub fn current(&self) -> Arc<Table> {
        // The lock guards one pointer: no panic can leave it half written.
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another table in force; handshakes that have begun keep the old one.
    pub fn swap(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().pick(client_hello.server_name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use super::*;
    use crate::dev::DevCerts;

    fn key() -> Arc<CertifiedKey> {
        let folder = tempfile::tempdir().unwrap();
        DevCerts::load_or_issue(folder.path(), "x.localhost", &[], SystemTime::now()).unwrap().key()
    }

    fn is(found: Option<Arc<CertifiedKey>>, key: &Arc<CertifiedKey>) -> bool {
        found.is_some_and(|found| Arc::ptr_eq(&found, key))
    }

    #[test]
    fn exact_comes_before_wildcard_and_case_does_not_matter() {
        let (exact, wild) = (key(), key());
        let table =
            Table::new().with("*.hub.localhost", Arc::clone(&wild)).with("Home.hub.localhost", Arc::clone(&exact));
        assert!(is(table.pick(Some("home.HUB.localhost.")), &exact));
        assert!(is(table.pick(Some("other.hub.localhost")), &wild));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let table = Table::new().with("*.hub.localhost", key());
        for name in ["hub.localhost", "a.b.hub.localhost", ".hub.localhost", ""] {
            assert!(table.pick(Some(name)).is_none(), "{name}");
        }
    }

    #[test]
    fn the_unknown_and_the_unnamed_are_refused_unless_told_otherwise() {
        let (unknown, unnamed) = (key(), key());
        assert!(Table::new().pick(Some("a.example")).is_none());
        assert!(Table::new().pick(None).is_none());
        let table = Table::new().for_unknown(Arc::clone(&unknown)).without_sni(Arc::clone(&unnamed));
        assert!(is(table.pick(Some("a.example")), &unknown));
        assert!(is(table.pick(None), &unnamed));
    }

    #[test]
    fn a_swapped_table_is_in_force_at_once() {
        let (old, new) = (key(), key());
        let resolver = Resolver::new(Table::new().with("a.example", Arc::clone(&old)));
        let begun = resolver.current();
        resolver.swap(Table::new().with("a.example", Arc::clone(&new)));
        assert!(is(begun.pick(Some("a.example")), &old));
        assert!(is(resolver.current().pick(Some("a.example")), &new));
    }
}
