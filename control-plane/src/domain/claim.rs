//! Claiming a server: the code that people type, and the life of a claim.

use std::fmt;
use std::time::Duration;

use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::keys::PublicKey;
use phlix_protocol::uplink::ServerKind;

use crate::timestamp::Timestamp;

/// The 32 symbols of a code: no O, 0, I, 1 to mistake.
const SYMBOLS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// A claim code: 40 bits, shown as `XXXX-XXXX`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClaimCode([u8; 8]);

impl ClaimCode {
    /// Each of the 2^40 codes is as likely as the bytes are.
    pub(crate) fn from_random(bytes: [u8; 5]) -> Self {
        let bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        Self(std::array::from_fn(|index| SYMBOLS[usize::from((bits >> (5 * index)) as u8 & 31)]))
    }

    /// As people type it: whatever is no letter or digit is passed over, case does not matter.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let mut symbols = text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_uppercase());
        let mut code = [0; 8];
        for place in &mut code {
            *place = symbols.next().filter(|symbol| SYMBOLS.contains(symbol))?;
        }
        symbols.next().is_none().then_some(Self(code))
    }
}

impl fmt::Display for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::str::from_utf8(&self.0).unwrap_or_default();
        write!(f, "{}-{}", &text[..4], &text[4..])
    }
}

/// A code opens a server: silent.
impl fmt::Debug for ClaimCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimCode(..)")
    }
}

/// What a server says of itself when it asks for a claim, checked.
#[derive(Clone, Debug)]
pub(crate) struct Applicant {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) key: PublicKey,
    pub(crate) hostname_candidates: Vec<String>,
    /// `Generic` exactly when it proved its key.
    pub(crate) kind: ServerKind,
}

/// A claim.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) code: ClaimCode,
    pub(crate) applicant: Applicant,
    pub(crate) requester_address: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) stage: Stage,
}

/// How far a claim has come. Whether its time is over is a question of `now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Pending,
    Redeemed(Redeemed),
}

/// A user typed the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redeemed {
    pub(crate) by: UserId,
    pub(crate) at: Timestamp,
    pub(crate) server: ServerId,
    /// Of the credentials that this claim is good for.
    pub(crate) generation: u64,
    /// When the server fetched its enrollment first.
    pub(crate) delivered_at: Option<Timestamp>,
}

/// What the polling server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pending,
    Claimed(Redeemed),
    Expired,
}

impl Claim {
    /// `fetch`: how long a redeemed claim waits for its server; `again`: how long a delivered one may be read again, after a
    /// lost reply.
    pub(crate) fn outcome(&self, now: Timestamp, fetch: Duration, again: Duration) -> Outcome {
        match self.stage {
            Stage::Pending if now < self.expires_at => Outcome::Pending,
            Stage::Pending => Outcome::Expired,
            Stage::Redeemed(redeemed) => {
                let end = match redeemed.delivered_at {
                    Some(delivered) => delivered.plus(again),
                    None => redeemed.at.plus(fetch),
                };
                if now < end { Outcome::Claimed(redeemed) } else { Outcome::Expired }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = ClaimCode::from_random([0, 1, 2, 3, 4]);
        let text = code.to_string();
        assert_eq!((text.len(), text.as_bytes()[4]), (9, b'-'));
        let spaced = text.replace('-', " ").to_lowercase();
        for spelling in [text.clone(), spaced, format!(" {text}\n"), text.replace('-', "")] {
            assert_eq!(ClaimCode::parse(&spelling), Some(code), "{spelling}");
        }
        for bad in ["", "ABCD", "ABCD-EFG", "ABCD-EFGHJ", "ABCD-EFG0", "ABCD-EFGI", "ÄBCD-EFGH"] {
            assert_eq!(ClaimCode::parse(bad), None, "{bad}");
        }
        assert_eq!(ClaimCode::parse(&"-".repeat(1 << 20)), None);
    }

    #[test]
    fn every_bit_of_chance_reaches_the_code() {
        let zero = ClaimCode::from_random([0; 5]);
        for bit in 0..40 {
            let mut bytes = [0; 5];
            bytes[bit / 8] = 1 << (bit % 8);
            assert_ne!(ClaimCode::from_random(bytes), zero, "bit {bit}");
        }
        assert_eq!(ClaimCode::from_random([255; 5]).to_string(), "9999-9999");
    }
}
