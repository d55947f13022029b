//! `phlix key`: the hub's signing keys.

use clap::{Arg, ArgMatches, Command};
use phlix_control_plane::{SealKey, operator};

use super::{Failure, Subcommand, fail, hub, tool_runtime};
use crate::secrets::parse_key;

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "key", define, run };

fn define() -> Command {
    Command::new("key")
        .about("List, rotate or reseal the hub's signing keys")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(hub::tool_flags(Command::new("list").about("Show the signing keys that are published")))
        .subcommand(hub::tool_flags(Command::new("rotate").about(
            "Make new signing keys; the old ones stay published until the last token that they signed has expired",
        )))
        .subcommand(hub::tool_flags(
            Command::new("reseal")
                .about("Seal every stored secret under the configured HUB_SEAL_KEY; stop the hub first")
                .arg(
                    Arg::new("old")
                        .long("old-key-file")
                        .value_name("FILE")
                        .required(true)
                        .help("File with the seal key that they are sealed under now"),
                ),
        ))
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else { return fail("say list, rotate or reseal") };
    let (_, config) = hub::for_tool(matches)?;
    let runtime = tool_runtime()?;
    match name {
        "list" => {
            for key in runtime.block_on(operator::list_keys(&config))? {
                let until = match (&key.retired_at, &key.published_until) {
                    (Some(at), Some(until)) => format!("retired {at}, published until {until}"),
                    _ => "in use".to_owned(),
                };
                say!("{}  {:<10}  made {}  {until}", key.kid, key.purpose, key.created_at);
            }
        }
        "rotate" => {
            runtime.block_on(operator::rotate_keys(&config))?;
            say!("new signing keys were made; running processes take them up within 10 s");
        }
        _ => {
            let path = matches.get_one::<String>("old").map(String::as_str).unwrap_or_default();
            let text = std::fs::read_to_string(path).map_err(|error| Failure(format!("{path}: {error}")))?;
            let Some(old) = parse_key(text.trim()) else { return fail(format!("{path}: is no seal key")) };
            let count = runtime.block_on(operator::reseal(&config, &SealKey::new(old)))?;
            say!("{count} secrets were sealed anew");
        }
    }
    Ok(())
}
