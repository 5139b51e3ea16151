//! What a member applied and what its log holds, as `pinrail debug dump-log` shows it.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// One member's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLog {
    pub node: usize,
    /// What it applied, in order. After a restart some entries come again.
    pub archive: Vec<Logged>,
    /// What its log held in the end, as far as all members had applied it: what is behind may never have been committed.
    pub log: Vec<Logged>,
}

/// An entry, or a snapshot that was installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    pub index: u64,
    pub term: u64,
    pub leader: u64,
    /// `batch`, `blank`, `membership`, `snapshot`.
    pub kind: String,
    /// Of its bytes; none for a snapshot.
    #[serde(default)]
    pub hash: String,
    /// Of the member when it had applied the entry; 0: a log does not say.
    #[serde(default)]
    pub revision: u64,
    #[serde(default)]
    pub commands: Vec<LoggedCommand>,
}

/// A command of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedCommand {
    /// `put_memory`, `start_run`, …
    pub kind: String,
    pub request_id: String,
    pub agent: String,
    /// The run or the memory key that it is about; empty: neither.
    pub subject: String,
}

impl Logged {
    /// Whether it is an entry of the log.
    #[must_use]
    pub fn is_entry(&self) -> bool {
        self.kind != "snapshot"
    }
}

impl MemberLog {
    /// Reads the lines of a dump.
    ///
    /// # Errors
    /// When a line is not what a dump prints.
    pub fn parse(dump: &str) -> Result<Vec<Logged>> {
        dump.lines()
            .map(|line| entry(line).with_context(|| format!("a line of a dump: {line}")))
            .collect()
    }
}

fn entry(line: &str) -> Result<Logged> {
    let mut line: Json = serde_json::from_str(line)?;
    let commands = match line["commands"].take() {
        Json::Array(commands) => commands.iter().map(command).collect(),
        _ => Vec::new(),
    };
    line["commands"] = Json::Array(Vec::new());
    Ok(Logged { commands, ..serde_json::from_value(line)? })
}

fn command(command: &Json) -> LoggedCommand {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let asked = &command["asked"];
    let named = [&asked["run_id"], &asked["step"]["run_id"], &asked["key"]];
    let subject = named.into_iter().find(|name| name.is_string()).unwrap_or(&Json::Null);
    LoggedCommand {
        kind: text(&command["kind"]),
        request_id: text(&command["request_id"]),
        agent: text(&asked["agent"]["agent_id"]),
        subject: text(subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_dump_are_read() {
        let dump = r#"{"bytes":27,"hash":"ab","index":3,"kind":"blank","leader":18446744073709551615,"term":2}
{"index":4,"term":2,"leader":1,"kind":"batch","hash":"cd","bytes":9,"revision":8,"stamp_ms":1,"commands":[{"kind":"put_memory","request_id":"r","actor":"a","revision":8,"asked":{"agent":{"namespace":"default","agent_id":"x"},"key":"k","value":1}}]}
{"index":9,"term":2,"leader":1,"kind":"snapshot","revision":20}"#;
        let read = MemberLog::parse(dump).expect("it is a dump");
        assert_eq!((read[0].leader, read[0].hash.as_str(), read[0].revision), (u64::MAX, "ab", 0));
        let (kind, request_id) = ("put_memory".to_owned(), "r".to_owned());
        let put = LoggedCommand { kind, request_id, agent: "x".into(), subject: "k".into() };
        assert_eq!((read[1].revision, &read[1].commands[..]), (8, &[put][..]));
        assert!(read[1].is_entry() && !read[2].is_entry());
        assert!(MemberLog::parse("{\"index\":1}").is_err());
    }
}
