//! config.toml of a person: endpoints and habits, by profile. Top-level keys hold for every profile.

use std::collections::BTreeMap;
use std::path::Path;

use pinrail_proto::reason;

use super::reader::Reader;
use super::{FileError, tree};

/// What a profile, or the top of the file, says. Texts are judged where they are used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) endpoint: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) actor: Option<String>,
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profiles {
    /// Used when nobody names another.
    pub(crate) profile: Option<String>,
    pub(crate) top: Profile,
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// Reads the file.
pub(crate) fn load(path: &Path) -> Result<Profiles, FileError> {
    parse(&path.display().to_string(), &super::read(path, &reason::INVALID_REQUEST)?)
}

fn parse(file: &str, text: &str) -> Result<Profiles, FileError> {
    let table = tree::parse(text).map_err(|error| FileError {
        reason: reason::INVALID_REQUEST.name,
        place: format!("{file}:{}", error.line),
        message: error.message,
    })?;
    let mut top = Reader::new(file, &reason::INVALID_REQUEST, table);
    let mut profiles = BTreeMap::new();
    for (name, mut table) in top.tables("profiles")? {
        profiles.insert(name, profile(&mut table)?);
        table.finish()?;
    }
    let chosen = top.text("profile")?.map(|(text, _)| text);
    let all = Profiles { profile: chosen, top: profile(&mut top)?, profiles };
    top.finish()?;
    Ok(all)
}

fn profile(table: &mut Reader<'_>) -> Result<Profile, FileError> {
    let mut text = |key| table.text(key).map(|found| found.map(|(text, _)| text));
    Ok(Profile {
        endpoint: text("endpoint")?,
        namespace: text("namespace")?,
        timeout: text("timeout")?,
        output: text("output")?,
        actor: text("actor")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_and_strangers_refused() {
        let text = "profile = 'prod'\noutput = 'wide'\n[profiles.prod]\nendpoint = 'a:1,b:1'\n";
        let all = parse("config.toml", text).expect("valid");
        assert_eq!(all.profile.as_deref(), Some("prod"));
        assert_eq!(all.top.output.as_deref(), Some("wide"));
        assert_eq!(all.profiles["prod"].endpoint.as_deref(), Some("a:1,b:1"));
        let error = parse("config.toml", "[profiles.p]\nendpoints = 'a:1'").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "config.toml:2: unknown key profiles.p.endpoints; did you mean endpoint?"
        );
    }
}
