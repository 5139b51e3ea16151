//! Files of users: read or refused, and what is read is read the same again.

use std::path::Path;

use pinrail_client::cli::file::{agent as agent_toml, bundle as bundle_toml};
use pinrail_client::cli::reads_eval_results;

/// A folder that is not there: a file that is named is missing, and nothing of this machine is read.
const NOWHERE: &str = "/nowhere/at/all";

pub(crate) fn agent(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = || agent_toml::parse("agent.toml", text, Path::new(NOWHERE));
    assert_eq!(read(), read());
}

pub(crate) fn bundle(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variable = |name: &str| (name != "NONE").then(|| name.to_owned());
    let around = bundle_toml::Surroundings { variable: &variable, set: &[] };
    let read = || bundle_toml::parse("bundle.toml", text, Path::new(NOWHERE), &around);
    assert_eq!(read(), read());
}

pub(crate) fn eval_results(data: &[u8]) {
    assert_eq!(reads_eval_results(data), reads_eval_results(data));
}
