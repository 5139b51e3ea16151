//! agent.toml: the policy of an agent. An empty file is the default policy; what is read is complete.

use std::path::Path;
use std::time::Duration;

use pinrail_proto::{limits, policy, reason, v1};

use super::reader::Reader;
use super::steps::{self, HOUR, MONTH, SECOND, Whose};
use super::{FileError, later, tree};

/// Longest time that finished runs are kept.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Reads a policy from a file.
///
/// # Errors
/// See [`parse`]; and when the file cannot be read.
pub fn load(path: &Path) -> Result<v1::Policy, FileError> {
    let text = super::read(path, &reason::INVALID_POLICY)?;
    parse(&path.display().to_string(), &text)
}

/// The policy that an empty file gives: every default of docs/FILES.md.
#[must_use]
pub fn default_policy() -> v1::Policy {
    policy::default()
}

/// Reads a policy from text; `file` names it in errors.
///
/// # Errors
/// `INVALID_POLICY` with file, line and key for syntax errors, unknown keys, values out of their range, and values that
/// a later version will support.
pub fn parse(file: &str, text: &str) -> Result<v1::Policy, FileError> {
    let table = tree::parse(text).map_err(|error| FileError {
        reason: reason::INVALID_POLICY.name,
        place: format!("{file}:{}", error.line),
        message: error.message,
    })?;
    let mut top = Reader::new(file, &reason::INVALID_POLICY, table);
    let later = later::defaults();
    let description = top.text("description")?;
    if let Some((text, line)) = &description
        && text.len() > limits::TEXT_BYTES
    {
        let rule = format!("description: {} bytes; at most {}", text.len(), limits::TEXT_BYTES);
        return Err(top.error(*line, rule));
    }
    let mut policy = v1::Policy {
        description: description.map_or_else(String::new, |(text, _)| text),
        labels: top.labels("labels")?,
        require_code: top.bool("require_code")?.unwrap_or(false),
        runs: Some(section(&mut top, "runs", runs)?),
        steps: top.table("steps")?.map(|table| steps::read(table, Whose::Agent)).transpose()?,
        switch: Some(section(&mut top, "switch", |table| switch(table, &later))?),
        rollback: Some(section(&mut top, "rollback", |table| rollback(table, &later))?),
        memory: Some(section(&mut top, "memory", |table| memory(table, &later))?),
        sessions: Some(section(&mut top, "sessions", sessions)?),
        ..v1::Policy::default()
    };
    later::sections(&mut top, &later)?;
    top.finish()?;
    policy::fill(&mut policy);
    Ok(policy)
}

/// Reads a section and sees that nothing is left over in it; an absent one counts as empty.
fn section<T: Default>(
    top: &mut Reader<'_>,
    key: &'static str,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, FileError>,
) -> Result<T, FileError> {
    let Some(mut table) = top.table(key)? else { return Ok(T::default()) };
    let value = read(&mut table)?;
    table.finish()?;
    Ok(value)
}

fn runs(table: &mut Reader<'_>) -> Result<v1::RunPolicy, FileError> {
    let execution = [("workers", v1::Execution::Workers), ("external", v1::Execution::External)];
    Ok(v1::RunPolicy {
        execution: table.word("execution", &execution)?.map_or(0, Into::into),
        max_age: table.duration("max_age", SECOND..=MONTH)?,
        retention: table.duration("retention", Duration::ZERO..=YEAR)?,
        max_open: table.number("max_open", 1..=limits::OPEN_RUNS)?,
        keep_alive: table.duration("keep_alive", Duration::ZERO..=MONTH)?,
        repinnable: table.bool("repinnable")?,
        restart_step: table.bool("restart_step")?,
    })
}

fn switch(table: &mut Reader<'_>, later: &tree::Table) -> Result<v1::SwitchPolicy, FileError> {
    let on_drain = [("cancel", v1::OnDrain::Cancel), ("repin", v1::OnDrain::Repin)];
    later::keys(table, "switch", later)?;
    Ok(v1::SwitchPolicy {
        drain_cap: table.duration("drain_cap", Duration::ZERO..=MONTH)?,
        on_drain: table.word("on_drain", &on_drain)?.map_or(0, Into::into),
        grace: table.duration("grace", Duration::ZERO..=HOUR)?,
        ..v1::SwitchPolicy::default()
    })
}

fn rollback(table: &mut Reader<'_>, later: &tree::Table) -> Result<v1::RollbackPolicy, FileError> {
    let in_flight = [
        ("keep", v1::InFlight::Keep),
        ("cancel", v1::InFlight::Cancel),
        ("restart", v1::InFlight::Restart),
    ];
    later::keys(table, "rollback", later)?;
    Ok(v1::RollbackPolicy { in_flight: table.word("in_flight", &in_flight)?.map_or(0, Into::into) })
}

fn sessions(table: &mut Reader<'_>) -> Result<v1::SessionPolicy, FileError> {
    let overlap = [
        ("queue", v1::Overlap::Queue),
        ("parallel", v1::Overlap::Parallel),
        ("reject", v1::Overlap::Reject),
    ];
    Ok(v1::SessionPolicy {
        max_age: table.duration("max_age", SECOND..=MONTH)?,
        cutoff: table.duration("cutoff", Duration::ZERO..=MONTH)?,
        overlap: table.word("overlap", &overlap)?.map_or(0, Into::into),
    })
}

fn memory(table: &mut Reader<'_>, later: &tree::Table) -> Result<v1::MemoryPolicy, FileError> {
    later::keys(table, "memory", later)?;
    Ok(v1::MemoryPolicy {
        quota_bytes: table.size("quota", 0..=1 << 50)?,
        versions: table.duration("versions", Duration::ZERO..=YEAR)?,
        ..v1::MemoryPolicy::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every key of docs/FILES.md and of later versions with its default.
    const FULL: &str = concat!(include_str!("testdata/agent.toml"));

    fn error(text: &str) -> String {
        parse("agent.toml", text).expect_err(text).to_string()
    }

    #[test]
    fn an_empty_file_is_the_default_policy() {
        assert_eq!(parse("agent.toml", "").expect("valid"), default_policy());
    }

    #[test]
    fn the_full_default_file_is_the_empty_file() {
        let full = parse("agent.toml", FULL).expect("every default is accepted");
        assert_eq!(full, default_policy());
    }

    #[test]
    fn drain_cap_follows_max_age() {
        let policy = parse("a", "[runs]\nmax_age = '90m'").expect("valid");
        let cap = policy.switch.and_then(|switch| switch.drain_cap).expect("filled in");
        assert_eq!(cap.seconds, 5_400);
    }

    #[test]
    fn decimals_become_thousandths() {
        let policy = parse("a", "steps.backoff = { factor = 1.5, jitter = 0 }").expect("valid");
        let backoff = policy.steps.and_then(|steps| steps.backoff).expect("given");
        assert_eq!((backoff.factor_permille, backoff.jitter_permille), (Some(1_500), Some(0)));
        assert_eq!(backoff.initial.expect("filled in").seconds, 1);
    }

    #[test]
    fn unknown_keys_name_file_line_key_and_neighbour() {
        assert_eq!(
            error("\n[runs]\nmax_agee = '1h'"),
            "agent.toml:3: unknown key runs.max_agee; did you mean max_age?"
        );
        assert_eq!(error("[nonsense]\nx = 1"), "agent.toml:1: unknown key nonsense");
    }

    #[test]
    fn values_out_of_range_name_the_range() {
        let cases = [
            (
                "[runs]\nmax_age = '31d'",
                "agent.toml:2: runs.max_age: 31d is out of range: 1s to 30d",
            ),
            ("[runs]\nmax_age = '0s'", "agent.toml:2: runs.max_age: 0s is out of range: 1s to 30d"),
            (
                "[runs]\nmax_open = 0",
                "agent.toml:2: runs.max_open: 0 is out of range: 1 to 2000000",
            ),
            (
                "[runs]\nmax_open = -1",
                "agent.toml:2: runs.max_open: -1 is out of range: 1 to 2000000",
            ),
            ("[steps]\nlease = '2h'", "agent.toml:2: steps.lease: 2h is out of range: 1s to 1h"),
            (
                "steps.backoff.factor = 0.5",
                "agent.toml:1: steps.backoff.factor: 0.5 is out of range: 1.0 to 100.0, at most three digits after the point",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(error(text), message);
        }
        assert!(error("[runs]\nmax_age = '-5s'").contains("negative"));
        assert!(error("[runs]\nmax_age = 5").contains("is an integer, expected a string"));
        assert!(error("[memory]\nquota = '1 elephant'").contains("is no size"));
        assert!(error("[runs]\nexecution = 'magic'").contains("none of workers, external"));
    }

    #[test]
    fn later_keys_are_never_silently_ignored() {
        let cases = [
            (
                "[switch]\nstrategy = 'drain'",
                "agent.toml:2: switch.strategy: not supported yet; only the default \"pin\" is accepted",
            ),
            (
                "[gates.evals]\nset = 'core@14'",
                "agent.toml:2: gates.evals.set: not supported yet; only the default \"\" is accepted",
            ),
            (
                "[release]\non_gate_failure = 'hold'",
                "agent.toml:2: release.on_gate_failure: not supported yet; only the default \"fail\" is accepted",
            ),
            ("[gates.evals]\nsett = ''", "agent.toml:2: unknown key gates.evals.sett"),
        ];
        for (text, message) in cases {
            assert_eq!(error(text), message);
        }
        assert!(error("[[hooks]]\nname = 'pager'").contains("hooks: not supported yet"));
        assert!(
            error("[gates.canary]\ninclude = { tenant = ['x'] }").contains("not supported yet")
        );
        assert!(error("[[gates.smoke.cases]]\nname = 'a'").contains("not supported yet"));
    }

    #[test]
    fn a_default_written_otherwise_is_still_the_default() {
        let text = "[sessions]\nmax_age = '1d'\n[gates.evals]\nmin_pass_rate = 0.9\n[quarantine]\nmin='1d'";
        assert_eq!(parse("a", text).expect("defaults"), default_policy());
    }

    #[test]
    fn syntax_errors_name_their_line() {
        assert!(error("a = 1\n\n[runs\n").starts_with("agent.toml:3: "));
    }
}
