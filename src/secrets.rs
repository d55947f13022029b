//! Secrets that `serve` makes and keeps in its data folder, so that a first start needs no settings at all.
//!
//! Files of mode 0600 in a folder of mode 0700, written whole under another name and then renamed: a crash leaves the old
//! file or the new one, never half of one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use phlix_protocol::ids::EdgeId;
use phlix_protocol::keys::SigningKey;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The data folder or a secret in it can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}")]
    Content { path: PathBuf, why: &'static str },
    #[error("{path}: {why}")]
    Certificate { path: PathBuf, why: String },
    #[error("{name}: {why}")]
    Setting { name: &'static str, why: &'static str },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SecretError + '_ {
    move |source| SecretError::Io { path: path.to_owned(), source }
}

/// Makes the folder where it is missing.
pub(crate) fn make_folder(path: &Path) -> Result<(), SecretError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path))
}

/// A certificate chain and its key, PEM files that the operator named.
pub(crate) fn certificate(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, SecretError> {
    let bad = |path: &Path, why: String| SecretError::Certificate { path: path.to_owned(), why };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| bad(chain, error.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(certificates, private, &provider);
    certified.map(Arc::new).map_err(|error| bad(chain, error.to_string()))
}

/// 32 bytes from the operating system.
pub(crate) fn random32() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// What a hub keeps secret.
pub(crate) struct HubSecrets {
    pub jwt_secret: Vec<u8>,
    pub seal_key: [u8; 32],
}

/// Takes what the settings give, and generates the rest into the data folder.
pub(crate) fn hub_secrets(data_dir: &Path, jwt: Option<&str>, seal: Option<&str>) -> Result<HubSecrets, SecretError> {
    let jwt_secret = match jwt {
        Some(given) if given.len() < 32 => {
            return Err(SecretError::Setting { name: "HUB_JWT_SECRET", why: "must have 32 bytes or more" });
        }
        Some(given) => given.as_bytes().to_vec(),
        None => load_or_generate(&data_dir.join("jwt-secret"))?.to_vec(),
    };
    let seal_key = match seal {
        Some(given) => parse_key(given).ok_or(SecretError::Setting {
            name: "HUB_SEAL_KEY",
            why: "must be 32 bytes as 64 hex digits or 43 characters of base64url",
        })?,
        None => load_or_generate(&data_dir.join("seal-key"))?,
    };
    Ok(HubSecrets { jwt_secret, seal_key })
}

/// The built-in edge's identity: made once, kept beside the secrets.
pub(crate) fn edge_identity(data_dir: &Path) -> Result<(EdgeId, SigningKey), SecretError> {
    let seed = load_or_generate(&data_dir.join("edge-key"))?;
    let key = SigningKey::from_seed(&seed);
    let path = data_dir.join("edge-id");
    let id = match read(&path)? {
        Some(text) => {
            text.parse().map_err(|_| SecretError::Content { path, why: "is no edge id; remove it to get a new one" })?
        }
        None => {
            let id = EdgeId::new(uuid::Uuid::new_v4());
            write_new(&path, &id.to_string())?;
            id
        }
    };
    Ok((id, key))
}

/// 64 hex digits or 43 characters of base64url.
pub(crate) fn parse_key(text: &str) -> Option<[u8; 32]> {
    if text.len() == 64 {
        let mut out = [0; 32];
        for (index, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        return Some(out);
    }
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?.try_into().ok()
}

fn load_or_generate(path: &Path) -> Result<[u8; 32], SecretError> {
    if let Some(text) = read(path)? {
        return parse_key(&text).ok_or_else(|| SecretError::Content {
            path: path.to_owned(),
            why: "is no key of 32 bytes in base64url; restore it from a backup",
        });
    }
    let bytes = random32();
    write_new(path, &URL_SAFE_NO_PAD.encode(bytes))?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<Option<String>, SecretError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path)(error)),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            return Err(SecretError::Content {
                path: path.to_owned(),
                why: "can be read by others: run chmod 600 on it",
            });
        }
        Ok(metadata) if metadata.len() > 4096 => {
            return Err(SecretError::Content { path: path.to_owned(), why: "is too large to be a secret of ours" });
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(|text| Some(text.trim().to_owned())).map_err(io(path))
}

/// Writes a file that did not exist; another process that was faster wins, and this one fails.
fn write_new(path: &Path, text: &str) -> Result<(), SecretError> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // A link, not a rename: it does not replace what another process just put there.
        fs::hard_link(&temporary, path)
    })();
    let _ = fs::remove_file(&temporary);
    written.map_err(io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_only_the_owner_reads_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = hub_secrets(folder.path(), None, None).expect("generated");
        let again = hub_secrets(folder.path(), None, None).expect("read");
        assert_eq!((first.seal_key, &first.jwt_secret), (again.seal_key, &again.jwt_secret));
        assert_ne!(first.seal_key.to_vec(), first.jwt_secret);
        for name in ["seal-key", "jwt-secret"] {
            let mode = fs::metadata(folder.path().join(name)).expect("is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 2, "no temporary file is left");
        let (id, key) = edge_identity(folder.path()).expect("made");
        let (same, same_key) = edge_identity(folder.path()).expect("read");
        assert_eq!((id, key.kid()), (same, same_key.kid()));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        hub_secrets(folder.path(), None, None).expect("generated");
        let path = folder.path().join("seal-key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        let error = hub_secrets(folder.path(), None, None).map(|_| ()).expect_err("refused");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn given_secrets_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(hub_secrets(folder.path(), Some("short"), None).is_err());
        assert!(hub_secrets(folder.path(), None, Some("short")).is_err());
        let hex = "00".repeat(31) + "ff";
        assert_eq!(hub_secrets(folder.path(), None, Some(&hex)).expect("good").seal_key[31], 0xff);
        assert!(parse_key(&"é".repeat(32)).is_none());
    }
}
