//! Where the cluster is and how answers look: defaults < config.toml < `PINRAIL_…` environment < flags.
//! Every value knows where it comes from.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::file::profile::{self, Profile, Profiles};
use super::file::value;
use super::problem::Problem;
use crate::config::{self, Config};

/// Flags that work everywhere.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Globals {
    /// Members to ask, `host:port`, comma-separated; the others are learned [env: PINRAIL_ENDPOINT]
    #[arg(long, global = true, value_name = "LIST")]
    pub endpoint: Option<String>,
    /// Tenant [env: PINRAIL_NAMESPACE] [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Profile of ~/.config/pinrail/config.toml [env: PINRAIL_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// How long a call may take with all its repeats [env: PINRAIL_TIMEOUT] [default: 10s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// How answers look [env: PINRAIL_OUTPUT] [default: table]
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Reads: answer from the state of the member that is asked, without a quorum
    #[arg(long, global = true)]
    pub local: bool,
}

/// How answers look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns for people
    #[default]
    Table,
    /// The same with more columns
    Wide,
    /// The API message
    Json,
    /// One item a line
    Jsonl,
    /// The API message as YAML
    Yaml,
    /// Only ids, one a line
    Name,
}

impl Output {
    /// Whether a program reads it, not a person.
    pub(super) fn is_structured(self) -> bool {
        matches!(self, Output::Json | Output::Jsonl | Output::Yaml)
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) origin: String,
}

/// Everything, merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) endpoint: Setting<String>,
    pub(super) namespace: Setting<String>,
    pub(super) timeout: Setting<Duration>,
    pub(super) output: Setting<Output>,
    pub(super) actor: Setting<String>,
    pub(super) profile: Setting<String>,
}

/// What is asked for variables.
type Variables<'v> = &'v dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Merges everything, reading the file and the environment.
    pub(super) fn load(globals: &Globals) -> Result<Settings, Problem> {
        let variables: Variables<'_> = &config::variable;
        let (path, explicit) = config_path(variables);
        let (file, profiles) = match path {
            Some(path) if explicit || path.exists() => {
                (path.display().to_string(), profile::load(&path)?)
            }
            Some(path) => (path.display().to_string(), Profiles::default()),
            None => (String::new(), Profiles::default()),
        };
        Settings::merge(globals, &file, &profiles, variables)
    }

    fn merge(
        globals: &Globals,
        file: &str,
        profiles: &Profiles,
        variables: Variables<'_>,
    ) -> Result<Settings, Problem> {
        let chosen = Layers { flag: &globals.profile, variables, file, profile: None }.pick(
            "profile",
            &profiles.profile,
            "",
        );
        let profile = match profiles.profiles.get(&chosen.value) {
            None if chosen.value.is_empty() => None,
            None => {
                let message = format!("{file} has no profile {:?}", chosen.value);
                return Err(Problem::usage(message));
            }
            Some(profile) => Some((chosen.value.as_str(), profile)),
        };
        let merge = |key, flag: &Option<String>, of: fn(&Profile) -> &Option<String>, default| {
            let profile = profile.and_then(|(name, it)| Some((name, of(it).as_ref()?)));
            Layers { flag, variables, file, profile }.pick(key, of(&profiles.top), default)
        };
        let output = globals.output.map(|output| output_name(output).to_owned());
        // A container may have a user without a name.
        let named = variables("USER").filter(|name| !name.is_empty());
        let user = named.unwrap_or_else(|| format!("uid:{}", rustix::process::getuid().as_raw()));
        Ok(Settings {
            endpoint: merge(
                "endpoint",
                &globals.endpoint,
                |p| &p.endpoint,
                config::DEFAULT_ENDPOINT,
            ),
            namespace: merge(
                "namespace",
                &globals.namespace,
                |p| &p.namespace,
                config::DEFAULT_NAMESPACE,
            ),
            timeout: timeout(merge("timeout", &globals.timeout, |p| &p.timeout, "10s"))?,
            output: parse_output(merge("output", &output, |p| &p.output, "table"))?,
            actor: merge("actor", &None, |p| &p.actor, &user),
            profile: chosen.clone(),
        })
    }

    /// For the client.
    pub(super) fn config(&self) -> Config {
        Config {
            endpoints: config::split_endpoints(&self.endpoint.value),
            namespace: self.namespace.value.clone(),
            timeout: self.timeout.value,
            actor: self.actor.value.clone(),
        }
    }

    /// Key, value and origin of each setting.
    pub(super) fn rows(&self) -> Vec<(&'static str, String, String)> {
        let timeout = value::show_duration(self.timeout.value);
        vec![
            ("endpoint", self.endpoint.value.clone(), self.endpoint.origin.clone()),
            ("namespace", self.namespace.value.clone(), self.namespace.origin.clone()),
            ("timeout", timeout, self.timeout.origin.clone()),
            ("output", output_name(self.output.value).to_owned(), self.output.origin.clone()),
            ("actor", self.actor.value.clone(), self.actor.origin.clone()),
            ("profile", self.profile.value.clone(), self.profile.origin.clone()),
        ]
    }
}

/// The sources of one value, strongest first.
struct Layers<'a> {
    flag: &'a Option<String>,
    variables: Variables<'a>,
    file: &'a str,
    profile: Option<(&'a str, &'a String)>,
}

impl Layers<'_> {
    fn pick(&self, key: &str, top: &Option<String>, default: &str) -> Setting<String> {
        let variable = format!("PINRAIL_{}", key.to_uppercase());
        let (value, origin) = if let Some(value) = self.flag {
            (value.clone(), format!("flag --{key}"))
        } else if let Some(value) = (self.variables)(&variable) {
            (value, format!("environment {variable}"))
        } else if let Some((name, value)) = self.profile {
            (value.clone(), format!("{} [profiles.{name}]", self.file))
        } else if let Some(value) = top {
            (value.clone(), self.file.to_owned())
        } else {
            (default.to_owned(), "default".to_owned())
        };
        Setting { value, origin }
    }
}

fn timeout(setting: Setting<String>) -> Result<Setting<Duration>, Problem> {
    let origin = setting.origin;
    let value = value::duration(&setting.value)
        .map_err(|rule| Problem::usage(format!("timeout ({origin}): {rule}")))?;
    if value.is_zero() {
        return Err(Problem::usage(format!("timeout ({origin}): 0s leaves no time for an answer")));
    }
    Ok(Setting { value, origin })
}

fn parse_output(setting: Setting<String>) -> Result<Setting<Output>, Problem> {
    let origin = setting.origin;
    let value = Output::from_str(&setting.value, true).map_err(|_| {
        Problem::usage(format!(
            "output ({origin}): {:?} is none of table, wide, json, jsonl, yaml, name",
            setting.value
        ))
    })?;
    Ok(Setting { value, origin })
}

fn output_name(output: Output) -> &'static str {
    match output {
        Output::Table => "table",
        Output::Wide => "wide",
        Output::Json => "json",
        Output::Jsonl => "jsonl",
        Output::Yaml => "yaml",
        Output::Name => "name",
    }
}

/// The file, and whether somebody named it.
fn config_path(variables: Variables<'_>) -> (Option<PathBuf>, bool) {
    if let Some(path) = variables("PINRAIL_CONFIG") {
        return (Some(path.into()), true);
    }
    let folder = variables("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variables("HOME").map(|home| PathBuf::from(home).join(".config")));
    (folder.map(|folder| folder.join("pinrail").join("config.toml")), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(globals: &Globals, variables: Variables<'_>) -> Result<Settings, Problem> {
        let prod = Profile {
            endpoint: Some("file:1".into()),
            namespace: Some("filed".into()),
            timeout: Some("20s".into()),
            ..Default::default()
        };
        let profiles = Profiles {
            profile: Some("prod".into()),
            top: Profile { output: Some("wide".into()), ..Default::default() },
            profiles: [("prod".to_owned(), prod)].into(),
        };
        Settings::merge(globals, "config.toml", &profiles, variables)
    }

    #[test]
    fn flags_beat_the_environment_beats_the_file_beats_defaults() {
        let variables = |name: &str| match name {
            "PINRAIL_ENDPOINT" => Some("env:1".to_owned()),
            "PINRAIL_NAMESPACE" => Some("enved".to_owned()),
            _ => None,
        };
        let globals = Globals { endpoint: Some("flag:1".into()), ..Default::default() };
        let settings = merge(&globals, &variables).expect("valid");
        let origin = |key| {
            let rows = settings.rows();
            let row = rows.into_iter().find(|row| row.0 == key).expect("known");
            (row.1, row.2)
        };
        assert_eq!(origin("endpoint"), ("flag:1".into(), "flag --endpoint".into()));
        assert_eq!(origin("namespace"), ("enved".into(), "environment PINRAIL_NAMESPACE".into()));
        assert_eq!(origin("timeout"), ("20s".into(), "config.toml [profiles.prod]".into()));
        assert_eq!(origin("output"), ("wide".into(), "config.toml".into()));
        let (actor, from) = origin("actor");
        assert!(actor.starts_with("uid:"), "{actor}");
        assert_eq!(from, "default");
    }

    #[test]
    fn wrong_values_name_their_origin() {
        let variables = |name: &str| (name == "PINRAIL_TIMEOUT").then(|| "soon".to_owned());
        let problem = merge(&Globals::default(), &variables).expect_err("no duration");
        assert!(problem.message.contains("PINRAIL_TIMEOUT"), "{}", problem.message);
        assert_eq!(problem.exit, 2);
        let globals = Globals { profile: Some("nowhere".into()), ..Default::default() };
        let problem = merge(&globals, &|_| None).expect_err("no such profile");
        assert!(problem.message.contains("nowhere"), "{}", problem.message);
    }
}
