//! What an agent keeps between two runs, in a folder that only its user can read.
//!
//! `server-key` is the one thing that can't be had again: whoever has it (with the enrollment) is this server.
//! `enrollment.json` says which server that is, at which hub, and what of the hub is trusted. `ticket.json` and
//! `keys.json` are copies of what the hub gave last, so that an agent comes back to any edge while the hub is away:
//! losing them costs nothing but that. `lock` keeps a second agent out.

mod files;
mod status;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use phlix_protocol::b64;
use phlix_protocol::ids::{InstanceId, ServerId};
use phlix_protocol::keys::{Jwks, SigningKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::random;
pub(crate) use status::write as write_status;
pub use status::{Stage, Status, status};

const LOCK: &str = "lock";
const KEY: &str = "server-key";
const INSTANCE: &str = "instance";
const ENROLLMENT: &str = "enrollment.json";
const TICKET: &str = "ticket.json";
const KEYS: &str = "keys.json";

/// What is wrong with the folder. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "can't use the state folder {path}: {source}; give another one with --state or make it writable for this user"
    )]
    Folder { path: PathBuf, source: io::Error },
    #[error("another agent runs on the state folder {path}; stop it, or give this one its own folder with --state")]
    InUse { path: PathBuf },
    #[error("can't read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("can't write {path}: {source}; make room on the disk, or make the folder writable for this user")]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is damaged; {what_to_do}")]
    Damaged { path: PathBuf, what_to_do: &'static str },
}

/// Which server this is, at which hub.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrollment {
    /// Origin of the hub as it was dialled when the server was claimed.
    pub(crate) hub: String,
    /// The confirmed key of the hub's TLS certificate, where no public certificate vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hub_key: Option<String>,
    pub(crate) server_id: ServerId,
    /// Path and query of the hub's key set.
    pub(crate) jwks_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner_name: Option<String>,
    /// The enrollment token.
    pub(crate) token: String,
}

/// What the hub gave for dialling.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredTicket {
    pub(crate) ticket: String,
    /// The edge list, as the hub signed it.
    pub(crate) edges: String,
}

/// Keeps other agents out of the folder as long as it lives.
pub(crate) struct Lock {
    _file: File,
}

/// The folder's files.
pub(crate) struct State {
    folder: PathBuf,
}

impl State {
    /// Opens and locks the folder, making it where there is none.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Lock), StateError> {
        let wrong = |source| StateError::Folder { path: folder.to_owned(), source };
        files::make_private_folder(folder).map_err(wrong)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(LOCK))
            .map_err(wrong)?;
        match lock.try_lock() {
            Ok(()) => Ok((Self { folder: folder.to_owned() }, Lock { _file: lock })),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(wrong(source)),
        }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's key, made at the first start.
    pub(crate) fn server_key(&self) -> Result<SigningKey, StateError> {
        let path = self.folder.join(KEY);
        let seed = match read(&path)? {
            Some(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| b64::decode_array(text.trim())).ok_or(
                StateError::Damaged {
                    path,
                    what_to_do: "restore it from a backup, or move it and enrollment.json away and claim the server anew",
                },
            )?,
            None => {
                let seed = random::bytes();
                write(&path, format!("{}\n", b64::encode(seed)).as_bytes())?;
                seed
            }
        };
        Ok(SigningKey::from_seed(&seed))
    }

    /// The id of this installation, made at the first start.
    pub(crate) fn instance(&self) -> Result<InstanceId, StateError> {
        let path = self.folder.join(INSTANCE);
        // Nothing rests on the id but telling two agents apart: a damaged one is made anew.
        let kept = read(&path)?.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
        if let Some(id) = kept {
            return Ok(id);
        }
        let id = InstanceId::new(random::uuid());
        write(&path, format!("{id}\n").as_bytes())?;
        Ok(id)
    }

    /// Which server this is, once it was claimed.
    pub(crate) fn enrollment(&self) -> Result<Option<Enrollment>, StateError> {
        let path = self.folder.join(ENROLLMENT);
        match read(&path)? {
            None => Ok(None),
            Some(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| StateError::Damaged {
                path,
                what_to_do: "restore it from a backup, or move it away and claim the server anew",
            }),
        }
    }

    pub(crate) fn save_enrollment(&self, enrollment: &Enrollment) -> Result<(), StateError> {
        self.save(ENROLLMENT, enrollment)
    }

    /// Forgets the enrollment and what came with it; the key stays, so that the hub knows the server again.
    pub(crate) fn forget_enrollment(&self) -> Result<(), StateError> {
        for name in [ENROLLMENT, TICKET, KEYS] {
            let path = self.folder.join(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The ticket that was fetched last, if it can be read.
    pub(crate) fn ticket(&self) -> Option<StoredTicket> {
        self.load_copy(TICKET)
    }

    pub(crate) fn save_ticket(&self, ticket: &StoredTicket) -> Result<(), StateError> {
        self.save(TICKET, ticket)
    }

    /// The hub's keys that were fetched last, if they can be read.
    pub(crate) fn keys(&self) -> Option<Jwks> {
        self.load_copy(KEYS)
    }

    pub(crate) fn save_keys(&self, keys: &Jwks) -> Result<(), StateError> {
        self.save(KEYS, keys)
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let json = serde_json::to_vec_pretty(value).expect("what is kept are plain structs");
        write(&self.folder.join(name), &json)
    }

    /// Copies can be had again: one that is gone or damaged is none.
    fn load_copy<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = read(&self.folder.join(name)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Whether an agent holds the folder's lock.
fn is_running(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    files::read(path).map_err(|source| StateError::Read { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    files::replace(path, bytes).map_err(|source| StateError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
