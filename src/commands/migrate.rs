//! `phlix migrate`: bring the database to this version's shape. `serve` does it at its start by itself.

use clap::{ArgMatches, Command};
use phlix_control_plane::operator;

use super::{Failure, Subcommand, hub, tool_runtime};

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "migrate", define, run };

fn define() -> Command {
    hub::tool_flags(Command::new("migrate").about("Bring the database to this version's shape"))
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let (_, config) = hub::for_tool(matches)?;
    tool_runtime()?.block_on(operator::migrate(&config))?;
    say!("the database is up to date");
    Ok(())
}
