//! One file a subcommand.

mod agent;
mod doctor;
mod hub;
mod key;
mod migrate;
mod openapi;
mod serve;
mod smoke;
mod user;

use std::fmt::{self, Display};

use clap::{ArgMatches, Command};

/// A subcommand: its name, its arguments, and what it does.
pub(crate) struct Subcommand {
    pub name: &'static str,
    pub define: fn() -> Command,
    pub run: fn(&ArgMatches) -> Result<(), Failure>,
}

/// All of them, in the order of `--help`.
pub(crate) fn all() -> [Subcommand; 8] {
    [
        serve::SUBCOMMAND,
        agent::SUBCOMMAND,
        migrate::SUBCOMMAND,
        user::SUBCOMMAND,
        key::SUBCOMMAND,
        smoke::SUBCOMMAND,
        doctor::SUBCOMMAND,
        openapi::SUBCOMMAND,
    ]
}

/// Why a command ends with exit code 1: a sentence that says what to do.
pub(crate) struct Failure(pub String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        // The whole chain: the first sentence says what failed, the last one why.
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self(text)
    }
}

/// A failure of one sentence.
fn fail<T>(sentence: impl Display) -> Result<T, Failure> {
    Err(Failure(sentence.to_string()))
}

/// A runtime for tools that run once.
fn tool_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
