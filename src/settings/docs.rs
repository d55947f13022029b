//! The table as people see it: flags with their help, and the README's section.

use clap::{Arg, Command};

#[cfg(test)]
use super::table::Setting;
use super::table::{Concern, SETTINGS};

/// Adds a flag for each setting of these concerns, and `--config`.
pub(crate) fn add_flags(mut command: Command, concerns: &[Concern]) -> Command {
    command = command.arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .help("Settings file [default: phlix.toml, where it exists]"),
    );
    for concern in concerns {
        for setting in SETTINGS.iter().filter(|setting| setting.concern == *concern) {
            let Some(flag) = setting.flag else { continue };
            let mut help = format!("{} [env: {}]", setting.help, setting.env);
            if !setting.default.is_empty() {
                help.push_str(&format!(" [default: {}]", setting.default));
            }
            command = command
                .arg(Arg::new(setting.env).long(flag).value_name("VALUE").help(help).help_heading(concern.title()));
        }
    }
    command
}

/// The README's tables of settings.
#[cfg(test)]
pub(crate) fn markdown() -> String {
    let mut out = String::new();
    for concern in Concern::HUB.into_iter().chain([Concern::Agent]) {
        out.push_str(&format!(
            "\n**{}**\n\n| variable | flag | `phlix.toml` | default | meaning |\n|---|---|---|---|---|\n",
            concern.title()
        ));
        for setting in SETTINGS.iter().filter(|setting| setting.concern == concern) {
            out.push_str(&row(setting));
        }
    }
    out
}

#[cfg(test)]
fn row(setting: &Setting) -> String {
    let name = if setting.secret { format!("`{0}`, `{0}_FILE`", setting.env) } else { format!("`{}`", setting.env) };
    let flag = setting.flag.map_or_else(|| "–".to_owned(), |flag| format!("`--{flag}`"));
    let default = if setting.default.is_empty() { "–".to_owned() } else { format!("`{}`", setting.default) };
    format!("| {name} | {flag} | `{}` | {default} | {} |\n", setting.key, setting.help)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- settings: from src/settings/table.rs, by UPDATE_README=1 cargo test -p phlix -->";
    const END: &str = "<!-- end of settings -->";

    #[test]
    fn the_readme_documents_every_setting() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).expect("README.md is there");
        let (before, rest) = readme.split_once(BEGIN).expect("the README has the marker");
        let (between, after) = rest.split_once(END).expect("the README has the end marker");
        let wanted = format!("\n{}\n", markdown().trim_end());
        if std::env::var_os("UPDATE_README").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("README.md can be written");
            return;
        }
        assert!(
            between == wanted,
            "the README's settings differ from the table: run UPDATE_README=1 cargo test -p phlix"
        );
    }
}
