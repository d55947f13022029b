//! `phlix user`: accounts, from the machine that the hub runs on. For the first admin of a closed hub, and for the one who
//! lost a password.

use std::io::IsTerminal as _;

use clap::{Arg, ArgAction, ArgMatches, Command};
use phlix_control_plane::operator::{self, Role};

use super::{Failure, Subcommand, fail, hub, tool_runtime};

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "user", define, run };

fn define() -> Command {
    let name = || Arg::new("username").required(true).value_name("USERNAME");
    let sub = |command: Command| hub::tool_flags(command);
    Command::new("user")
        .about("List, create and repair accounts")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(sub(Command::new("list").about("Show all accounts")))
        .subcommand(sub(Command::new("create")
            .about("Create an account; its password is read from standard input, or made and printed")
            .arg(name())
            .arg(Arg::new("email").required(true).value_name("EMAIL"))
            .arg(Arg::new("admin").long("admin").action(ArgAction::SetTrue).help("Make it an admin"))))
        .subcommand(sub(Command::new("reset-password")
            .about("Set a new password, read from standard input, or made and printed; ends all its sessions")
            .arg(name())))
        .subcommand(sub(Command::new("set-admin")
            .about("Make an account an admin, or with --off an ordinary one")
            .arg(name())
            .arg(Arg::new("off").long("off").action(ArgAction::SetTrue))))
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let Some((command, matches)) = matches.subcommand() else { return fail("say list, create, …") };
    let (_, config) = hub::for_tool(matches)?;
    let runtime = tool_runtime()?;
    let username = || matches.get_one::<String>("username").map(String::as_str).unwrap_or_default();
    match command {
        "list" => {
            for user in runtime.block_on(operator::list_users(&config))? {
                let role = if user.role == Role::Administrator { "admin" } else { "user" };
                say!("{}  {role:<5}  {}  {}", user.id, user.username, user.email);
            }
        }
        "create" => {
            let email = matches.get_one::<String>("email").map(String::as_str).unwrap_or_default();
            let (password, made) = password()?;
            let role = if matches.get_flag("admin") { Role::Administrator } else { Role::User };
            runtime.block_on(operator::create_user(&config, username(), email, &password, role))?;
            say!("created {}", username());
            if made {
                say!("password: {password}");
            }
        }
        "reset-password" => {
            let (password, made) = password()?;
            runtime.block_on(operator::reset_password(&config, username(), &password))?;
            say!("{} has a new password; its sessions were ended", username());
            if made {
                say!("password: {password}");
            }
        }
        _ => {
            let role = if matches.get_flag("off") { Role::User } else { Role::Administrator };
            runtime.block_on(operator::set_role(&config, username(), role))?;
            say!("{} is {}", username(), if role == Role::User { "an ordinary user" } else { "an admin" });
        }
    }
    Ok(())
}

/// The password from standard input where that is a pipe; else 20 random characters, and `true`.
fn password() -> Result<(String, bool), Failure> {
    if std::io::stdin().is_terminal() {
        // 20 of 32 symbols are 100 bits.
        const SYMBOLS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let random = crate::secrets::random32();
        let text = random.iter().take(20).map(|byte| char::from(SYMBOLS[usize::from(byte % 32)])).collect();
        return Ok((text, true));
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return fail("no password on standard input");
    }
    Ok((password.to_owned(), false))
}
