//! Flags that many verbs share.

use std::time::Duration;

use clap::Args;
use pinrail_proto::json::{self, Worded};
use pinrail_proto::limits;

use super::file::value;
use super::problem::Problem;

/// Flags of reads.
#[derive(Debug, Clone, Default, Args)]
pub struct ReadFlags {
    /// Read again each second
    #[arg(short, long)]
    pub(super) watch: bool,
}

/// Flags of lists.
#[derive(Debug, Clone, Args)]
pub struct ListFlags {
    /// Read again each second
    #[arg(short, long)]
    pub(super) watch: bool,
    /// At most so many items
    #[arg(long, value_name = "N", default_value_t = limits::PAGE_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
    /// Go on where an earlier list ended (its next_page_token)
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub(super) page_token: String,
}

impl Default for ListFlags {
    fn default() -> Self {
        Self { watch: false, limit: limits::PAGE_DEFAULT, page_token: String::new() }
    }
}

/// Flags of writes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Writing")]
pub(super) struct WriteFlags {
    /// Judge it and show the answer, but change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Why, for the event
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) reason: String,
    /// Only if the object was last changed at this revision
    #[arg(long, value_name = "N")]
    pub(super) expect_revision: Option<u64>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Makes a repeat safe: the same id asks again instead of doing it twice
    #[arg(long, value_name = "ID")]
    pub(super) request_id: Option<String>,
}

/// A run, and its agent when the id does not lead to it.
#[derive(Debug, Clone, Args)]
pub(super) struct RunId {
    /// Run id
    #[arg(value_name = "RUN")]
    pub(super) run_id: String,
    /// Agent of the run; not needed for ids that Pinrail made
    #[arg(long = "agent", value_name = "AGENT", default_value = "", hide_default_value = true)]
    pub(super) agent_id: String,
}

impl RunId {
    /// Both ids, checked.
    pub(super) fn parts(&self) -> Result<(String, String), Problem> {
        pinrail_proto::id::check_token("run id", &self.run_id)?;
        if !self.agent_id.is_empty() {
            pinrail_proto::id::check_name("agent", &self.agent_id)?;
        }
        Ok((self.agent_id.clone(), self.run_id.clone()))
    }
}

/// A duration of a flag.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text)
}

/// A duration as the API takes it.
pub(super) fn api_duration(duration: Duration) -> prost_types::Duration {
    pinrail_proto::time::duration(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// `key=value`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("a label is key=value".to_owned()),
    }
}

/// An enum's value, by the word that tables show.
pub(super) fn word<E: Worded>(text: &str) -> Result<E, String> {
    json::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_may_come_without_their_agent() {
        let id = |run: &str, agent: &str| RunId { run_id: run.into(), agent_id: agent.into() };
        assert_eq!(id("r", "").parts(), Ok((String::new(), "r".into())));
        assert_eq!(id("r", "support").parts(), Ok(("support".into(), "r".into())));
        assert_eq!(id("a\nb", "").parts().expect_err("control").exit, 2);
        assert!(id(&"x".repeat(257), "").parts().is_err());
        assert!(id("r", "-a").parts().is_err());
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err() && label("=b").is_err());
    }
}
