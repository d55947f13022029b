//! SHA-256 as stories compare it.

use std::fs::File;
use std::io::{BufReader, copy};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Of a file, in hex; of nothing where there is no such file.
pub fn of_file(path: &Path) -> String {
    let mut hash = Hashing(Sha256::new());
    if let Ok(file) = File::open(path) {
        copy(&mut BufReader::with_capacity(1 << 20, file), &mut hash).unwrap();
    }
    hex(&hash.0.finalize())
}

/// Of bytes, in hex.
pub fn of(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
