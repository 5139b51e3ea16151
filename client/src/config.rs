//! The one file of the library that reads the environment: where the cluster is, and who is asking.
//!
//! `PINRAIL_ENDPOINT` (one or several, comma-separated), `PINRAIL_NAMESPACE`, `PINRAIL_TIMEOUT`, `PINRAIL_ACTOR`, and for
//! workers `PINRAIL_BUNDLE`, `PINRAIL_CODE`, `PINRAIL_WORKER_ID`.

use std::time::Duration;

use crate::error::{Error, Result};

/// Where a server listens when nothing else is said.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:7420";
/// Of a call with all its repeats.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The namespace that exists from the start.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Endpoints of one client, given or learned.
pub const MAX_ENDPOINTS: usize = 64;

/// How a client reaches its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `host:port` or `http://host:port`; at least one.
    pub endpoints: Vec<String>,
    /// What requests without a namespace get.
    pub namespace: String,
    /// Of a call with all its repeats.
    pub timeout: Duration,
    /// Who is asking, for the audit log; may be empty.
    pub actor: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: vec![DEFAULT_ENDPOINT.to_owned()],
            namespace: DEFAULT_NAMESPACE.to_owned(),
            timeout: DEFAULT_TIMEOUT,
            actor: String::new(),
        }
    }
}

impl Config {
    /// The defaults, with what the environment says instead.
    ///
    /// # Errors
    /// `Invalid` for a timeout that is none.
    pub fn from_env() -> Result<Config> {
        let mut config = Config::default();
        if let Some(list) = variable("PINRAIL_ENDPOINT") {
            config.endpoints = split_endpoints(&list);
        }
        if let Some(namespace) = variable("PINRAIL_NAMESPACE") {
            config.namespace = namespace;
        }
        if let Some(actor) = variable("PINRAIL_ACTOR") {
            config.actor = actor;
        }
        if let Some(timeout) = variable("PINRAIL_TIMEOUT") {
            config.timeout = humantime::parse_duration(&timeout)
                .map_err(|error| Error::invalid(format!("PINRAIL_TIMEOUT {timeout:?}: {error}")))?;
        }
        Ok(config)
    }
}

/// The bundle that a worker serves, when its program does not say.
#[must_use]
pub fn worker_bundle() -> Option<String> {
    variable("PINRAIL_BUNDLE")
}

/// What a worker was built from, when its program does not say.
#[must_use]
pub fn worker_code() -> Option<String> {
    variable("PINRAIL_CODE")
}

/// A worker's id, when its program does not say.
#[must_use]
pub fn worker_id() -> Option<String> {
    variable("PINRAIL_WORKER_ID")
}

/// A comma-separated list of endpoints.
#[must_use]
pub fn split_endpoints(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Brings an endpoint into the one form that is compared: `host:port`.
///
/// # Errors
/// `Invalid` when there is no port, or for `https`, which is not supported yet.
pub fn normalize_endpoint(endpoint: &str) -> Result<String> {
    if endpoint.starts_with("https://") {
        return Err(Error::invalid(format!("endpoint {endpoint:?}: TLS is not supported yet")));
    }
    let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() {
        return Err(Error::invalid(format!("endpoint {endpoint:?} is not host:port")));
    }
    Ok(address.to_owned())
}

/// A variable of the environment; an empty one counts as not set.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_lists_of_host_and_port() {
        assert_eq!(split_endpoints(" a:1, b:2,,"), ["a:1", "b:2"]);
        assert_eq!(normalize_endpoint("http://a:1/"), Ok("a:1".to_owned()));
        assert_eq!(normalize_endpoint("[::1]:7420"), Ok("[::1]:7420".to_owned()));
        for wrong in ["", "a", "a:b", "https://a:1", "a:70000"] {
            assert!(normalize_endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
