//! Settings: flags, then environment, then `phlix.toml`, then defaults; read once, refused before a port is opened.

mod agent;
mod docs;
mod hub;
mod table;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(crate) use agent::{AgentSettings, state_dir as agent_state_dir};
pub(crate) use docs::add_flags;
pub(crate) use hub::{DatabaseChoice, HubSettings, LogFormat};
pub(crate) use table::Concern;
use table::{SETTINGS, setting};

/// Largest `phlix.toml` or secret file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// A setting that can't be used, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingError {
    #[error("{name} ({from}): {why}")]
    Invalid { name: &'static str, from: String, why: String },
    #[error("{name} is not set: {hint}")]
    Missing { name: &'static str, hint: &'static str },
    #[error("{path}: {why}")]
    File { path: PathBuf, why: String },
    #[error("{path}: unknown key `{key}`; known are: {known}")]
    UnknownKey { path: PathBuf, key: String, known: String },
    #[error("{0}")]
    Conflict(String),
}

/// Several at once: all that is wrong is said in one go.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct SettingErrors(pub Vec<SettingError>);

impl From<SettingError> for SettingErrors {
    fn from(error: SettingError) -> Self {
        Self(vec![error])
    }
}

/// A value and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub value: String,
    pub from: String,
}

/// The three places that a value may come from.
pub(crate) struct Sources {
    flags: BTreeMap<&'static str, String>,
    env: BTreeMap<String, String>,
    file: Option<(PathBuf, toml::Table)>,
}

impl Sources {
    /// Reads flags of this command, the environment, and the file that `--config`, `PHLIX_CONFIG` or the working folder
    /// names.
    pub(crate) fn read(matches: &clap::ArgMatches) -> Result<Self, SettingErrors> {
        let flags = SETTINGS
            .iter()
            .filter_map(|setting| {
                let value = matches.try_get_one::<String>(setting.env).ok().flatten()?;
                Some((setting.env, value.clone()))
            })
            .collect();
        let env: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let named = matches
            .try_get_one::<String>("config")
            .ok()
            .flatten()
            .cloned()
            .or_else(|| env.get("PHLIX_CONFIG").filter(|value| !value.is_empty()).cloned())
            .map(PathBuf::from);
        let file = match named {
            Some(path) => Some(read_toml(&path)?),
            None if Path::new("phlix.toml").exists() => Some(read_toml(Path::new("phlix.toml"))?),
            None => None,
        };
        Ok(Self { flags, env, file })
    }

    /// The value of a setting where somebody gave one; an empty variable is no value.
    pub(crate) fn find(&self, name: &'static str) -> Result<Option<Found>, SettingError> {
        let setting = setting(name);
        if let (Some(value), Some(flag)) = (self.flags.get(name), setting.flag) {
            return Ok(Some(Found { value: value.clone(), from: format!("--{flag}") }));
        }
        let from_env = |name: &str| self.env.get(name).filter(|value| !value.is_empty()).cloned();
        let direct = from_env(name);
        if setting.secret {
            let file_name = format!("{name}_FILE");
            match (direct, from_env(&file_name)) {
                (Some(_), Some(_)) => {
                    return Err(SettingError::Conflict(format!("{name} and {file_name} are both set: keep one")));
                }
                (Some(value), None) => return Ok(Some(Found { value, from: "environment".into() })),
                (None, Some(path)) => {
                    let path = PathBuf::from(path);
                    let text = read_small(&path)?;
                    return Ok(Some(Found { value: text.trim().to_owned(), from: path.display().to_string() }));
                }
                (None, None) => {}
            }
        } else if let Some(value) = direct {
            return Ok(Some(Found { value, from: "environment".into() }));
        }
        let Some((path, table)) = &self.file else { return Ok(None) };
        let Some(value) = table.get(setting.key) else { return Ok(None) };
        let value = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => {
                return Err(SettingError::Invalid {
                    name: setting.env,
                    from: path.display().to_string(),
                    why: "expected text, a whole number or true/false".into(),
                });
            }
        };
        Ok(Some(Found { value, from: path.display().to_string() }))
    }

    /// A variable that is not ours alone: known to other programs by the same name, and in no table.
    pub(crate) fn environment(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.env.get(*name).map(String::as_str).filter(|value| !value.is_empty()))
    }

    /// The value as given, or the default of the table.
    pub(crate) fn text(&self, name: &'static str) -> Result<String, SettingError> {
        Ok(self.find(name)?.map_or_else(|| setting(name).default.to_owned(), |found| found.value))
    }

    /// The value, parsed; a bad one names the setting, where it came from and what is wrong.
    pub(crate) fn parse<T>(&self, name: &'static str) -> Result<T, SettingError>
    where
        T: FromStr,
        T::Err: Display,
    {
        let found = self
            .find(name)?
            .unwrap_or_else(|| Found { value: setting(name).default.to_owned(), from: "default".into() });
        parse_found(name, &found)
    }

    /// The value, parsed, where somebody gave one.
    pub(crate) fn parse_given<T>(&self, name: &'static str) -> Result<Option<T>, SettingError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.find(name)?.map(|found| parse_found(name, &found)).transpose()
    }

    /// A number within bounds.
    pub(crate) fn number(
        &self,
        name: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, SettingError> {
        let value: u64 = self.parse(name)?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        Err(self.invalid(name, format!("must be {} to {}", bounds.start(), bounds.end())))
    }

    /// The error for a value that parsed and still can't be.
    pub(crate) fn invalid(&self, name: &'static str, why: impl Into<String>) -> SettingError {
        let from = self.find(name).ok().flatten().map_or_else(|| "default".into(), |found| found.from);
        SettingError::Invalid { name, from, why: why.into() }
    }
}

fn parse_found<T>(name: &'static str, found: &Found) -> Result<T, SettingError>
where
    T: FromStr,
    T::Err: Display,
{
    found.value.trim().parse().map_err(|error: T::Err| SettingError::Invalid {
        name,
        from: found.from.clone(),
        why: if setting(name).secret { error.to_string() } else { format!("`{}`: {error}", found.value) },
    })
}

fn read_small(path: &Path) -> Result<String, SettingError> {
    use std::io::Read as _;
    let fail = |why: String| SettingError::File { path: path.to_owned(), why };
    let file = std::fs::File::open(path).map_err(|error| fail(error.to_string()))?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| fail(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(fail(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

fn read_toml(path: &Path) -> Result<(PathBuf, toml::Table), SettingErrors> {
    let text = read_small(path)?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| SettingError::File { path: path.to_owned(), why: error.to_string() })?;
    let unknown: Vec<SettingError> = table
        .keys()
        .filter(|key| !SETTINGS.iter().any(|setting| setting.key == *key))
        .map(|key| SettingError::UnknownKey {
            path: path.to_owned(),
            key: key.clone(),
            known: SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", "),
        })
        .collect();
    if unknown.is_empty() { Ok((path.to_owned(), table)) } else { Err(SettingErrors(unknown)) }
}

/// Collects a value or its error, so that all errors come out together.
pub(super) fn keep<T>(errors: &mut Vec<SettingError>, result: Result<T, SettingError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sources(env: &[(&str, &str)], file: &str) -> Sources {
        Sources {
            flags: BTreeMap::new(),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            file: Some((PathBuf::from("phlix.toml"), file.parse().expect("test toml"))),
        }
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let mut sources = sources(&[("HUB_PORT", "2")], "port = 3");
        assert_eq!(sources.parse::<u16>("HUB_PORT").expect("number"), 2);
        sources.flags.insert("HUB_PORT", "1".into());
        assert_eq!(sources.parse::<u16>("HUB_PORT").expect("number"), 1);
        sources.flags.clear();
        sources.env.insert("HUB_PORT".into(), String::new());
        assert_eq!(sources.parse::<u16>("HUB_PORT").expect("number"), 3);
        sources.file = None;
        assert_eq!(sources.parse::<u16>("HUB_PORT").expect("number"), 8800);
    }

    #[test]
    fn a_bad_value_says_which_where_and_why() {
        let error = sources(&[("HUB_PORT", "eighty")], "").parse::<u16>("HUB_PORT").expect_err("no number");
        assert_eq!(error.to_string(), "HUB_PORT (environment): `eighty`: invalid digit found in string");
    }

    #[test]
    fn a_secret_is_never_repeated_in_an_error() {
        let error = sources(&[("HUB_SEAL_KEY", "hunter2")], "").parse::<u16>("HUB_SEAL_KEY").expect_err("no number");
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_secret_in_two_places_is_a_conflict() {
        let both = sources(&[("HUB_SEAL_KEY", "a"), ("HUB_SEAL_KEY_FILE", "b")], "");
        assert!(matches!(both.find("HUB_SEAL_KEY"), Err(SettingError::Conflict(_))));
    }

    #[test]
    fn names_flags_and_keys_are_unique() {
        for (index, one) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[index + 1..] {
                assert_ne!(one.env, other.env);
                assert_ne!(one.key, other.key);
                assert!(one.flag.is_none() || one.flag != other.flag, "{:?}", one.flag);
            }
        }
    }
}
