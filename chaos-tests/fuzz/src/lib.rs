//! Functions that must survive any bytes: they decode what comes from disks, files and callers, and panic when a promise is
//! broken. `make fuzz` has libFuzzer look for such bytes; `tests/corpora.rs` gives each function those that were
//! interesting once.

mod commands;
mod files;
mod keys;
#[cfg(feature = "node")]
mod node;
mod tokens;

/// A function, and the name of its folder in `corpora`.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// Every target of this build.
pub const TARGETS: &[Target] = &[
    Target { name: "agent_file", run: files::agent },
    Target { name: "bundle_file", run: files::bundle },
    Target { name: "commands", run: commands::apply },
    Target { name: "eval_results", run: files::eval_results },
    Target { name: "keys", run: keys::built_and_taken_apart },
    #[cfg(feature = "node")]
    Target { name: "log_entry", run: node::log_entry },
    #[cfg(feature = "node")]
    Target { name: "server_file", run: node::server_file },
    #[cfg(feature = "node")]
    Target { name: "snapshot_manifest", run: node::snapshot_manifest },
    Target { name: "tokens", run: tokens::pages },
];
