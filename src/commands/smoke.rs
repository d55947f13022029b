//! `phlix smoke jwt`: sign and verify one token of each kind with the configured keys.

use clap::{ArgMatches, Command};
use phlix_control_plane::operator;

use super::{Failure, Subcommand, fail, hub, tool_runtime};

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "smoke", define, run };

fn define() -> Command {
    Command::new("smoke")
        .about("Try out parts of the hub; exit code 0 when they work, 1 when not")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(hub::tool_flags(
            Command::new("jwt").about("Sign and verify one token of each kind with the configured keys"),
        ))
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some(("jwt", matches)) = matches.subcommand() else { return fail("say jwt") };
    let (_, config) = hub::for_tool(matches)?;
    for kind in tool_runtime()?.block_on(operator::smoke_tokens(&config))? {
        say!("ok  {kind}");
    }
    Ok(())
}
