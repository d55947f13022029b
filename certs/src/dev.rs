//! The development CA: TLS for machines that have no public name.
//!
//! A CA and a leaf, two certificates (TLS clients refuse a CA that acts as a server), made once in a
//! folder. People and tests trust `dev-ca.pem`; nobody switches checks off. The leaf is issued anew
//! when it nears its end or the names changed, always with the same key, so that a
//! [pin](crate::pin::SpkiPin) of it holds.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::files::{self, Readers};
use crate::pin::SpkiPin;

const CA_CERT: &str = "dev-ca.pem";
const CA_KEY: &str = "dev-ca.key";
const LEAF_CERT: &str = "dev-leaf.pem";
const LEAF_KEY: &str = "dev-leaf.key";

/// A browser is told once to trust it: long enough that nobody has to do it twice.
const CA_LIFE: Duration = Duration::days(3652);
/// Browsers refuse server certificates that live longer than 398 days.
const LEAF_LIFE: Duration = Duration::days(365);
/// What is left when a certificate is issued anew.
const RENEW_BEFORE: Duration = Duration::days(30);
/// Clients whose clock is somewhat behind accept a fresh certificate, too.
const BACKDATE: Duration = Duration::days(1);

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The data folder could not be read or written.
    #[error("development certificate file {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key file holds something else.
    #[error("{} is not a private key in PEM: move it away to have a new one made", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        source: rcgen::Error,
    },
    /// A name can't stand in a certificate.
    #[error("no certificate can be made for these names")]
    Names(#[source] rcgen::Error),
    /// Signing failed.
    #[error("the development CA could not sign")]
    Sign(#[source] rcgen::Error),
    /// rustls does not take what we made.
    #[error("the development certificate does not work")]
    Unusable(#[source] rustls::Error),
}

/// The CA's file and the leaf, ready for rustls.
#[derive(Debug, Clone)]
pub struct DevCerts {
    ca_file: PathBuf,
    ca: CertificateDer<'static>,
    key: Arc<CertifiedKey>,
    pin: SpkiPin,
    renew_at: SystemTime,
}

impl DevCerts {
    /// Loads what is in `folder`, makes what is missing, and issues the leaf anew where fewer than
    /// 30 days are left or it does not carry exactly these names.
    ///
    /// The names are `public_domain`, `*.public_domain`, `localhost`, 127.0.0.1, ::1 and
    /// `extra_names` (host names or IP addresses). Key files are created readable by the owner only.
    ///
    /// # Errors
    /// Where the folder can't be used, or a key file in it holds something else.
    pub fn load_or_issue(
        folder: &Path,
        public_domain: &str,
        extra_names: &[String],
        now: SystemTime,
    ) -> Result<Self, DevError> {
        let now = OffsetDateTime::from(now);
        std::fs::create_dir_all(folder).map_err(|e| at(folder, e))?;

        let ca_key = load_or_make_key(&folder.join(CA_KEY))?;
        let ca_file = folder.join(CA_CERT);
        let ca = match stored(&ca_file)? {
            Some(ca) if Facts::of(&ca).is_some_and(|f| f.serves_as_ca(&ca_key, now)) => ca,
            _ => make_ca(&ca_file, &ca_key, now)?,
        };

        let names = names(public_domain, extra_names);
        let leaf_key = load_or_make_key(&folder.join(LEAF_KEY))?;
        let leaf_file = folder.join(LEAF_CERT);
        let leaf = match stored(&leaf_file)? {
            Some(leaf) if Facts::of(&leaf).is_some_and(|f| f.serves(&leaf_key, &ca_key, &names, now)) => leaf,
            _ => make_leaf(&leaf_file, &leaf_key, &ca, ca_key, &names, now)?,
        };

        let not_after = Facts::of(&leaf).map_or(now, |f| f.not_after);
        let pin = SpkiPin::of_certificate(&leaf).map_err(DevError::Unusable)?;
        let der = PrivateKeyDer::try_from(leaf_key.serialize_der())
            .map_err(|e| DevError::Unusable(rustls::Error::General(e.to_owned())))?;
        let key =
            CertifiedKey::from_der(vec![leaf], der, &aws_lc_rs::default_provider()).map_err(DevError::Unusable)?;
        Ok(Self { ca_file, ca, key: Arc::new(key), pin, renew_at: (not_after - RENEW_BEFORE).into() })
    }

    /// The file to trust: the CA's certificate in PEM.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca(&self) -> &CertificateDer<'static> {
        &self.ca
    }

    /// The leaf and its key, for a [`Table`](crate::resolver::Table).
    #[must_use]
    pub fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }

    /// The pin of the leaf's key; it outlives the certificate.
    #[must_use]
    pub fn pin(&self) -> SpkiPin {
        self.pin
    }

    /// From then on [`DevCerts::load_or_issue`] issues the leaf anew.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        self.renew_at
    }
}

fn at(path: &Path, source: io::Error) -> DevError {
    DevError::File { path: path.to_owned(), source }
}

/// Lower-case, each name once, IP addresses in their one spelling.
fn names(public_domain: &str, extra: &[String]) -> BTreeSet<String> {
    let spelling = |name: &str| name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |ip| ip.to_string());
    let mut names: BTreeSet<String> = extra.iter().map(|name| spelling(name)).collect();
    names.extend([
        spelling(public_domain),
        format!("*.{}", spelling(public_domain)),
        "localhost".to_owned(),
        Ipv4Addr::LOCALHOST.to_string(),
        Ipv6Addr::LOCALHOST.to_string(),
    ]);
    names
}

fn load_or_make_key(path: &Path) -> Result<KeyPair, DevError> {
    let pem = match files::read(path).map_err(|e| at(path, e))? {
        Some(pem) => pem,
        None => {
            let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(DevError::Sign)?;
            let pem = made.serialize_pem();
            if files::create(path, pem.as_bytes(), Readers::Owner).map_err(|e| at(path, e))? {
                return Ok(made);
            }
            // Another process was faster: its key is the one.
            std::fs::read(path).map_err(|e| at(path, e))?
        }
    };
    KeyPair::from_pem(&String::from_utf8_lossy(&pem)).map_err(|source| DevError::Key { path: path.to_owned(), source })
}

/// The certificate in a file; `None` where there is none or it is damaged, so that it is made anew.
fn stored(path: &Path) -> Result<Option<CertificateDer<'static>>, DevError> {
    let pem = files::read(path).map_err(|e| at(path, e))?;
    Ok(pem.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok()))
}

fn make_ca(file: &Path, key: &KeyPair, now: OffsetDateTime) -> Result<CertificateDer<'static>, DevError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Phlix Hub development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATE;
    params.not_after = now + CA_LIFE;
    params.serial_number = Some(serial(key, now));
    let made = params.self_signed(key).map_err(DevError::Sign)?;
    files::replace(file, made.pem().as_bytes(), Readers::Everyone).map_err(|e| at(file, e))?;
    Ok(made.der().clone())
}

fn make_leaf(
    file: &Path,
    key: &KeyPair,
    ca: &CertificateDer<'_>,
    ca_key: KeyPair,
    names: &BTreeSet<String>,
    now: OffsetDateTime,
) -> Result<CertificateDer<'static>, DevError> {
    let names: Vec<String> = names.iter().cloned().collect();
    let mut params = CertificateParams::new(names).map_err(DevError::Names)?;
    params.distinguished_name = named("Phlix Hub development server");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATE;
    params.not_after = now + LEAF_LIFE;
    params.serial_number = Some(serial(key, now));
    let issuer = Issuer::from_ca_cert_der(ca, ca_key).map_err(DevError::Sign)?;
    let made = params.signed_by(key, &issuer).map_err(DevError::Sign)?;
    files::replace(file, made.pem().as_bytes(), Readers::Everyone).map_err(|e| at(file, e))?;
    Ok(made.der().clone())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Differs for each issue: browsers refuse two certificates of one issuer with the same serial.
fn serial(key: &KeyPair, now: OffsetDateTime) -> SerialNumber {
    let mut hash = Sha256::new();
    hash.update(key.der_bytes());
    hash.update(now.unix_timestamp_nanos().to_be_bytes());
    let mut bytes: [u8; 32] = hash.finalize().into();
    // RFC 5280 s.4.1.2.2: positive, not zero, at most 20 bytes.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes[..16])
}

/// What decides whether a stored certificate still serves.
struct Facts {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    spki: Vec<u8>,
    issuer_key_id: Option<Vec<u8>>,
    is_ca: bool,
    names: BTreeSet<String>,
}

impl Facts {
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let mut names = BTreeSet::new();
        if let Some(san) = cert.subject_alternative_name().ok()? {
            for name in &san.value.general_names {
                names.insert(match name {
                    GeneralName::DNSName(name) => (*name).to_owned(),
                    GeneralName::IPAddress(bytes) => ip(bytes)?.to_string(),
                    _ => return None,
                });
            }
        }
        let issuer_key_id = cert.extensions().iter().find_map(|extension| {
            use x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier;
            match extension.parsed_extension() {
                AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref()?.0.to_vec()),
                _ => None,
            }
        });
        Some(Self {
            not_before: cert.validity().not_before.to_datetime(),
            not_after: cert.validity().not_after.to_datetime(),
            spki: cert.public_key().raw.to_vec(),
            issuer_key_id,
            is_ca: cert.is_ca(),
            names,
        })
    }

    /// A clock that went back does not cost people their trusted CA.
    fn serves_as_ca(&self, key: &KeyPair, now: OffsetDateTime) -> bool {
        self.is_ca && self.spki == key.subject_public_key_info() && now < self.not_after - RENEW_BEFORE
    }

    fn serves(&self, key: &KeyPair, ca_key: &KeyPair, names: &BTreeSet<String>, now: OffsetDateTime) -> bool {
        !self.is_ca
            && self.spki == key.subject_public_key_info()
            && self.issuer_key_id.as_deref() == Some(&key_id(ca_key)[..])
            && self.names == *names
            && self.not_before <= now
            && now < self.not_after - RENEW_BEFORE
    }
}

/// The key identifier as rcgen derives it.
fn key_id(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().key_identifier(key)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::time::Duration as StdDuration;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;

    const DAY: StdDuration = StdDuration::from_secs(86_400);

    /// 2026-01-01.
    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + StdDuration::from_secs(1_767_225_600)
    }

    fn issue(folder: &Path, now: SystemTime) -> DevCerts {
        DevCerts::load_or_issue(folder, "hub.localhost", &[], now).unwrap()
    }

    fn accepts(certs: &DevCerts, name: &str, now: SystemTime) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certs.ca().clone()).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
                .build()
                .unwrap();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        verifier
            .verify_server_cert(
                &certs.key().cert[0],
                &[],
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                UnixTime::since_unix_epoch(since),
            )
            .is_ok()
    }

    #[test]
    fn who_trusts_the_ca_accepts_every_name_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let extra = ["media.lan".to_owned(), "10.0.0.7".to_owned()];
        let certs = DevCerts::load_or_issue(folder.path(), "hub.localhost", &extra, start()).unwrap();
        for name in
            ["hub.localhost", "0a1b2c3d.hub.localhost", "localhost", "127.0.0.1", "::1", "media.lan", "10.0.0.7"]
        {
            assert!(accepts(&certs, name, start()), "{name}");
        }
        for name in ["a.b.hub.localhost", "example.com", "10.0.0.8"] {
            assert!(!accepts(&certs, name, start()), "{name}");
        }
    }

    #[test]
    fn a_second_start_finds_the_same_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let first = issue(folder.path(), start());
        let second = issue(folder.path(), start() + DAY);
        assert_eq!(first.ca(), second.ca());
        assert_eq!(first.key().cert, second.key().cert);
        assert_eq!(first.renew_at(), second.renew_at());
    }

    #[test]
    fn the_leaf_is_renewed_with_the_same_key_under_the_same_ca() {
        let folder = tempfile::tempdir().unwrap();
        let first = issue(folder.path(), start());
        let later = first.renew_at();
        assert_eq!(issue(folder.path(), later - DAY).key().cert, first.key().cert);
        let second = issue(folder.path(), later);
        assert_ne!(second.key().cert, first.key().cert);
        assert_eq!(second.ca(), first.ca());
        assert_eq!(second.pin(), first.pin());
        assert!(accepts(&second, "localhost", later + 300 * DAY));
        assert!(!accepts(&first, "localhost", later + 300 * DAY));
    }

    #[test]
    fn other_names_issue_the_leaf_anew() {
        let folder = tempfile::tempdir().unwrap();
        let first = issue(folder.path(), start());
        let second = DevCerts::load_or_issue(folder.path(), "media.localhost", &[], start()).unwrap();
        assert!(accepts(&second, "tv.media.localhost", start()));
        assert!(!accepts(&second, "tv.hub.localhost", start()));
        assert_eq!(second.pin(), first.pin());
        assert_eq!(second.ca(), first.ca());
    }

    #[test]
    fn two_issues_never_share_a_serial() {
        let folder = tempfile::tempdir().unwrap();
        let serial = |certs: &DevCerts| {
            let key = certs.key();
            let (_, cert) = X509Certificate::from_der(&key.cert[0]).unwrap();
            cert.raw_serial().to_vec()
        };
        let first = issue(folder.path(), start());
        fs::remove_file(folder.path().join(LEAF_CERT)).unwrap();
        let second = issue(folder.path(), start() + StdDuration::from_millis(1));
        assert_ne!(serial(&first), serial(&second));
    }

    #[test]
    fn a_new_ca_key_reissues_both() {
        let folder = tempfile::tempdir().unwrap();
        let first = issue(folder.path(), start());
        fs::remove_file(folder.path().join(CA_KEY)).unwrap();
        let second = issue(folder.path(), start());
        assert_ne!(second.ca(), first.ca());
        assert!(accepts(&second, "localhost", start()));
    }

    #[test]
    fn damaged_certificates_are_made_anew_and_a_damaged_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        issue(folder.path(), start());
        fs::write(folder.path().join(CA_CERT), "no certificate").unwrap();
        fs::write(folder.path().join(LEAF_CERT), "no certificate").unwrap();
        assert!(accepts(&issue(folder.path(), start()), "localhost", start()));
        fs::write(folder.path().join(LEAF_KEY), "no key").unwrap();
        let refused = DevCerts::load_or_issue(folder.path(), "hub.localhost", &[], start()).unwrap_err();
        assert!(refused.to_string().contains("dev-leaf.key"), "{refused}");
    }

    #[test]
    fn a_name_that_cannot_be_certified_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = DevCerts::load_or_issue(folder.path(), "straße.localhost", &[], start()).unwrap_err();
        assert!(matches!(refused, DevError::Names(_)));
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        issue(folder.path(), start());
        for (file, mode) in [(CA_KEY, 0o600), (LEAF_KEY, 0o600), (CA_CERT, 0o644)] {
            let found = fs::metadata(folder.path().join(file)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
        }
    }
}
