//! `phlix openapi`: the API's description, OpenAPI 3.1, on standard output.

use clap::{ArgMatches, Command};
use phlix_control_plane::operator;

use super::{Failure, Subcommand};

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "openapi", define, run };

fn define() -> Command {
    Command::new("openapi").about("Print the OpenAPI description of the HTTP API")
}

fn run(_: &ArgMatches) -> Result<(), Failure> {
    say!("{}", operator::openapi());
    Ok(())
}
