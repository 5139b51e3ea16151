//! What a node reads from its disk and from its configuration.

use pinrail_node::config::ServerConfig;
use pinrail_node::testing::decoded;

pub(crate) fn log_entry(data: &[u8]) {
    decoded::log_entry(data);
}

pub(crate) fn snapshot_manifest(data: &[u8]) {
    decoded::snapshot_manifest(data);
}

/// Read or refused; and what is read can be told to a person.
pub(crate) fn server_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = ServerConfig::parse("server.toml", text) {
        assert!(!config.describe().is_empty());
        // Whether it may be reached from elsewhere is another question, which has an answer too.
        let _ = config.check_reach(false);
    }
}
