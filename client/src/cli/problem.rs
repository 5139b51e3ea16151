//! How an error reads and which exit code it gives. One place for both; verbs only say what happened.

use std::io::IsTerminal as _;

use pinrail_proto::reason;

use super::file::FileError;
use super::settings::Output;
use crate::error::{Error, UNREACHABLE};

/// Exit codes that are no reason's.
pub(super) const OK: u8 = 0;
pub(super) const ERROR: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const TIMED_OUT: u8 = 5;
pub(super) const UNAVAILABLE: u8 = 6;
pub(super) const REFUSED: u8 = 9;
pub(super) const DIFFERENT: u8 = 10;
pub(super) const RUN_ENDED: u8 = 11;
pub(super) const INTERRUPTED: u8 = 130;

/// What went wrong, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: String,
    pub(super) message: Box<str>,
    /// Facts behind it.
    pub(super) why: Vec<String>,
    /// Commands or advice.
    pub(super) next: Vec<String>,
    pub(super) request_id: Box<str>,
    pub(super) revision: u64,
    pub(super) exit: u8,
}

impl Problem {
    pub(super) fn new(reason: &str, exit: u8, message: impl Into<String>) -> Problem {
        Problem {
            reason: reason.to_owned(),
            message: message.into().into(),
            why: Vec::new(),
            next: Vec::new(),
            request_id: Box::default(),
            revision: 0,
            exit,
        }
    }

    /// The caller asked wrongly.
    pub(super) fn usage(message: impl Into<String>) -> Problem {
        Problem::new(reason::INVALID_REQUEST.name, USAGE, message)
    }

    /// Waiting took longer than it may.
    pub(super) fn timed_out(message: impl Into<String>) -> Problem {
        Problem::new("TIMED_OUT", TIMED_OUT, message)
    }

    pub(super) fn next(mut self, line: impl Into<String>) -> Problem {
        self.next.push(line.into());
        self
    }

    /// Adds what the reason alone suggests; `agent` is the one that the command named.
    pub(super) fn advise(&mut self, agent: &str, request_id: &str) {
        if self.reason == reason::OUTCOME_UNKNOWN.name {
            if request_id.is_empty() {
                self.next.push("the same command again: doing it twice is the same".to_owned());
                return;
            }
            self.request_id = request_id.into();
            let line = format!("the same command with --request-id {request_id}");
            self.next.push(format!("{line}      asks again, and is done at most once"));
            return;
        }
        if self.next.is_empty() {
            let agent = if agent.is_empty() { "AGENT" } else { agent };
            self.next = advice(&self.reason, agent).iter().map(ToString::to_string).collect();
        }
    }

    /// Writes it to stderr.
    pub(super) fn print(&self, output: Output) {
        if output.is_structured() {
            eprintln!("{}", self.json());
            return;
        }
        let color =
            std::io::stderr().is_terminal() && crate::config::variable("NO_COLOR").is_none();
        let (red, plain) = if color { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
        eprint!("{red}error[{}]{plain}: {}", self.reason, self.body());
    }

    fn body(&self) -> String {
        let mut text = format!("{}\n", self.message);
        for (label, lines) in [("why", &self.why), ("next", &self.next)] {
            for (index, line) in lines.iter().enumerate() {
                let label = if index == 0 { label } else { "" };
                text.push_str(&format!("  {label:4}  {line}\n"));
            }
        }
        let mut more = Vec::new();
        if reason::find(&self.reason).is_some() {
            more.push(format!("pinrail explain {}", self.reason));
        }
        if !self.request_id.is_empty() {
            more.push(format!("request {}", self.request_id));
        }
        if self.revision != 0 {
            more.push(format!("revision {}", self.revision));
        }
        if !more.is_empty() {
            text.push_str(&format!("  more  {}\n", more.join("      ")));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let more = reason::find(&self.reason).map(|it| format!("pinrail explain {}", it.name));
        serde_json::json!({
            "reason": self.reason,
            "message": self.message,
            "why": self.why,
            "next": self.next,
            "more": more.unwrap_or_default(),
            "request_id": self.request_id,
            "revision": self.revision,
            "exit_code": self.exit,
        })
    }
}

/// The exit code of a reason; 1 for one that is not in the catalogue.
pub(super) fn exit_code(name: &str) -> u8 {
    if name == UNREACHABLE {
        return UNAVAILABLE;
    }
    reason::find(name).and_then(|reason| u8::try_from(reason.exit).ok()).unwrap_or(1)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Rejected { reason, code: _, message, mut metadata, revision } => {
                let mut problem = Problem::new(&reason, exit_code(&reason), message);
                problem.revision = revision;
                metadata.remove("revision");
                if let Some(near) = metadata.remove("suggestion").filter(|near| !near.is_empty()) {
                    problem.next.push(format!("did you mean {near}?"));
                }
                let (next, why): (Vec<_>, Vec<_>) = metadata
                    .into_iter()
                    .filter(|(_, value)| !value.is_empty())
                    .partition(|(key, _)| key.starts_with("next_"));
                problem.next.extend(next.into_iter().map(|(_, command)| command));
                problem.why = why
                    .into_iter()
                    .map(|(key, value)| format!("{}  {value}", key.replace('_', " ")))
                    .collect();
                problem
            }
            Error::Unavailable { reason, message } => {
                Problem::new(&reason, exit_code(&reason), message)
            }
            Error::Unknown { request_id, message } => {
                let name = reason::OUTCOME_UNKNOWN.name;
                let message = format!("whether it was done is not known: {message}");
                Problem {
                    request_id: request_id.into(),
                    ..Problem::new(name, exit_code(name), message)
                }
            }
            Error::Invalid { message } => Problem::usage(message),
            Error::RunEnded { ref reason, .. } => {
                Problem::new(reason, RUN_ENDED, error.to_string())
            }
        }
    }
}

impl From<FileError> for Problem {
    fn from(error: FileError) -> Problem {
        let more = "docs/FILES.md lists every key with its default and range";
        Problem::new(error.reason, exit_code(error.reason), error.to_string()).next(more)
    }
}

impl From<pinrail_proto::id::IdError> for Problem {
    fn from(error: pinrail_proto::id::IdError) -> Problem {
        let name = reason::INVALID_ID.name;
        Problem::new(name, exit_code(name), error.to_string())
    }
}

/// What to do next, by reason; commands where there is one.
fn advice(reason: &str, agent: &str) -> Vec<String> {
    let lines: &[&str] = match reason {
        "NAMESPACE_NOT_FOUND" => &["pinrail namespace list"],
        "AGENT_NOT_FOUND" => &["pinrail agent list", "pinrail agent create {} -f agent.toml"],
        "BUNDLE_NOT_FOUND" => &["pinrail bundle list {}"],
        "RUN_NOT_FOUND" => &["pinrail run list {}", "give the agent with --agent"],
        "EVAL_REPORT_NOT_FOUND" => &[
            "pinrail eval list {}",
            "pinrail eval submit {} BUNDLE -f results.json --set NAME@VERSION",
        ],
        "EVAL_SET_NOT_FOUND" => &["pinrail eval set list {}"],
        "WORKER_NOT_FOUND" => &["pinrail worker list {}"],
        "MEMBER_NOT_FOUND" | "ALREADY_A_MEMBER" => &["pinrail cluster members"],
        "NAMESPACE_NOT_EMPTY" => &["pinrail agent list"],
        "AGENT_EXISTS" => &["pinrail agent apply {} -f agent.toml"],
        "AGENT_HAS_OPEN_RUNS" => &["pinrail run list {} --open"],
        "BUNDLE_CONFLICT" | "PART_CONFLICT" => &["pinrail bundle list {}", "take a new bundle id"],
        "RUN_EXISTS" => &["take another --run-id"],
        "REVISION_MISMATCH" | "ROUTE_CHANGED" => &["pinrail status {}"],
        "AGENT_PAUSED" => &["pinrail agent resume {}"],
        "NO_LIVE_BUNDLE" => &["pinrail bundle list {}", "pinrail switch {} BUNDLE"],
        "NOTHING_TO_ROLL_BACK" => &["pinrail status {}", "pinrail switch {} BUNDLE"],
        "ROLLBACK_AMBIGUOUS" => &["pinrail status {}", "pinrail rollback {} --from BUNDLE"],
        "BUNDLE_REJECTED" => {
            &["pinrail switch {} BUNDLE --force --reason \"…\"      overrides, recorded"]
        }
        "GATE_NOT_PASSED" => &["pinrail release status {}", "pinrail release start {} BUNDLE"],
        "BUNDLE_HAS_TRAFFIC" | "DRAIN_NOT_OVER" => &["pinrail drain status {}"],
        "QUORUM_WOULD_BE_LOST" => &[
            "pinrail cluster members",
            "pinrail cluster remove NODE --force      overrides: the cluster may stop",
        ],
        "NO_QUORUM" => &["pinrail cluster status", "reads work with --local"],
        "NO_LEADER" | "NOT_BOOTSTRAPPED" | "MEMBERSHIP_BUSY" => &["pinrail cluster status"],
        "OVERLOADED" => &["try again in a moment"],
        UNREACHABLE => &["is the server running? --endpoint or PINRAIL_ENDPOINT says where"],
        "COMPACTED" => &["pinrail event list {}"],
        _ => &[],
    };
    lines.iter().map(|line| line.replace("{}", agent)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(reason: &str, metadata: &[(&str, &str)]) -> Problem {
        let metadata =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Problem::from(Error::Rejected {
            reason: reason.into(),
            code: 5,
            message: "why".into(),
            metadata,
            revision: 118,
        })
    }

    #[test]
    fn reasons_give_their_exit_codes() {
        let cases = [
            ("AGENT_NOT_FOUND", 1),
            ("MODEL_NOT_PINNED", 2),
            ("REVISION_MISMATCH", 7),
            ("PERMISSION_DENIED", 8),
            ("NO_LIVE_BUNDLE", 9),
            ("STALE_READ", 6),
            ("SOMETHING_NEWER", 1),
        ];
        for (reason, exit) in cases {
            assert_eq!(rejected(reason, &[]).exit, exit, "{reason}");
        }
        for reason in ["NO_QUORUM", "NO_LEADER", "OVERLOADED", UNREACHABLE] {
            let error = Error::Unavailable { reason: reason.into(), message: "x".into() };
            assert_eq!(Problem::from(error).exit, 6, "{reason}");
        }
        let ended = Error::RunEnded {
            run_id: "r".into(),
            state: pinrail_proto::v1::RunState::Expired,
            reason: "MAX_AGE".into(),
            message: "too old".into(),
        };
        assert_eq!(Problem::from(ended).exit, 11);
        assert_eq!(Problem::from(Error::invalid("x")).exit, 2);
    }

    #[test]
    fn an_unknown_outcome_names_the_request_id() {
        let error = Error::Unknown { request_id: "r1".into(), message: "no answer".into() };
        let mut problem = Problem::from(error);
        problem.advise("support", "q7");
        assert_eq!(problem.exit, 12);
        assert!(problem.body().contains("--request-id q7"), "{}", problem.body());
    }

    #[test]
    fn errors_read_as_documented() {
        let mut problem = rejected("BUNDLE_NOT_FOUND", &[("revision", "118"), ("limit", "3")]);
        problem.advise("support", "");
        assert_eq!(
            problem.body(),
            "why\n  why   limit  3\n  next  pinrail bundle list support\n  more  pinrail explain BUNDLE_NOT_FOUND      revision 118\n"
        );
        let two = [("next_1", "pinrail rollback a --from v1"), ("next_2", "pinrail status a")];
        let problem = rejected("ROLLBACK_AMBIGUOUS", &two);
        assert_eq!(problem.next, ["pinrail rollback a --from v1", "pinrail status a"]);
        assert!(problem.why.is_empty());
        let near = rejected("AGENT_NOT_FOUND", &[("suggestion", "support")]);
        assert_eq!(near.next, ["did you mean support?"]);
    }

    #[test]
    fn the_json_error_has_the_same_fields() {
        let json = rejected("NO_LIVE_BUNDLE", &[]).json();
        assert_eq!(json["reason"], "NO_LIVE_BUNDLE");
        assert_eq!(json["more"], "pinrail explain NO_LIVE_BUNDLE");
        assert_eq!((json["revision"].as_u64(), json["exit_code"].as_u64()), (Some(118), Some(9)));
    }
}
