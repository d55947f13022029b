//! `phlix`: the hub, its edge, its agent and its operator's tools in one program.
//!
//! Composition only: settings are read and checked here, sockets bound, parts started and stopped; what the parts do is
//! in their crates.

/// Prints a line for the person at the terminal. Nobody listening is no failure: a `println!` would panic, and an agent must
/// not end because its output was cut off.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout().lock(), $($line)*);
    }};
}

mod commands;
mod logs;
mod ready;
mod secrets;
mod settings;
mod signals;
mod sockets;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Command;

fn command() -> Command {
    Command::new("phlix")
        .about("Reach a home media server from anywhere.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(commands::all().iter().map(|command| (command.define)()))
}

fn main() -> ExitCode {
    // The one TLS provider of the whole program; a second install would be a mistake of ours.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let matches = command().get_matches();
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    let all = commands::all();
    let Some(found) = all.iter().find(|command| command.name == name) else { return ExitCode::from(2) };
    match (found.run)(matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "phlix {name}: {}", failure.0);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
