//! An account, and the rules for what a person may type into its form (upstream-api s.2.1).

use std::fmt;

use phlix_protocol::ids::UserId;
use thiserror::Error;

use crate::timestamp::Timestamp;

/// An account.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) username: String,
    pub(crate) email: String,
    pub(crate) display_name: String,
    pub(crate) is_admin: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// What is wrong with a field of the form, in words for the person who typed it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum FieldError {
    #[error("Username must have 3 to 50 characters")]
    Username,
    #[error("Username must not begin or end with a space or contain control characters")]
    UsernameCharacters,
    #[error("Email address is not valid")]
    Email,
    #[error("Password must have at least 8 characters")]
    ShortPassword,
    #[error("Password must have at most 4096 characters")]
    LongPassword,
}

/// A user name: 3 to 50 bytes, nearly any characters. Its key folds case, so that no two look alike by case alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Username(String);

impl Username {
    pub(crate) fn parse(text: &str) -> Result<Self, FieldError> {
        if !(3..=50).contains(&text.len()) {
            return Err(FieldError::Username);
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return Err(FieldError::UsernameCharacters);
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&self) -> String {
        fold(&self.0)
    }
}

/// An e-mail address of the everyday shape `name@host.domain`, at most 254 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Email(String);

impl Email {
    pub(crate) fn parse(text: &str) -> Result<Self, FieldError> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(FieldError::Email)?;
        let atom = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b))
        };
        let label = |part: &str| {
            (1..=63).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        let valid = text.len() <= 254
            && local.len() <= 64
            && local.split('.').all(atom)
            && domain.contains('.')
            && domain.split('.').all(label);
        if valid { Ok(Self(text.to_owned())) } else { Err(FieldError::Email) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn key(&self) -> String {
        fold(&self.0)
    }
}

/// One form for what must be unique and what is looked up, the same on both databases.
pub(crate) fn fold(text: &str) -> String {
    text.trim().to_lowercase()
}

/// A password that somebody chose: 8 to 4096 bytes. Silent in logs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    /// For a new password.
    pub(crate) fn parse(text: &str) -> Result<Self, FieldError> {
        match text.len() {
            0..8 => Err(FieldError::ShortPassword),
            8..=4096 => Ok(Self(text.to_owned())),
            _ => Err(FieldError::LongPassword),
        }
    }

    /// For one that is tried: whatever was typed, so that a wrong one of any length takes the same way.
    pub(crate) fn tried(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_passwords_have_their_bounds() {
        for good in ["ann", "Ann B.", "ünï", &"a".repeat(50)] {
            assert!(Username::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "an", " ann", "ann ", "a\nnn", "a\0nn", &"a".repeat(51)] {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a@b.c", "first.last+tag@mail.example", " a@b.example "] {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
        let long = format!("{}@b.example", "a".repeat(65));
        for bad in
            ["", "a", "@b.c", "a@", "a@b", "a@@b.c", "a..b@c.d", "a@-b.c", "a@b..c", "a b@c.d", "a@b.c\n.d", &long]
        {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Password::parse("1234567"), Err(FieldError::ShortPassword));
        assert!(Password::parse("12345678").is_ok());
        assert!(Password::parse(&"x".repeat(4096)).is_ok());
        assert_eq!(Password::parse(&"x".repeat(4097)), Err(FieldError::LongPassword));
        assert_eq!(format!("{:?}", Password::tried("hunter2")), "Password(..)");
    }

    #[test]
    fn case_makes_no_second_person() {
        assert_eq!(Username::parse("ÄNN").unwrap().key(), Username::parse("änn").unwrap().key());
        assert_eq!(Email::parse("A@B.example").unwrap().key(), "a@b.example");
    }
}
