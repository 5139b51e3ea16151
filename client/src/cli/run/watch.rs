//! `run watch`: the durable changes of a run as they happen, and what its steps emit.

use clap::Args;
use pinrail_proto::v1;

use super::super::context::{Context, Done};
use super::super::flags::RunId;
use super::super::human;
use super::super::json;
use super::super::problem::{self, Problem};
use super::super::settings::Output;
use super::super::view::{write, write_told};
use super::result::{ended, value};

#[derive(Debug, Clone, Args)]
pub struct Watch {
    #[command(flatten)]
    run: RunId,
    /// Only changes after this revision; 0: the present state first
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    from: u64,
    /// Print what the steps of the run emit as it comes; changes go to stderr then
    #[arg(long)]
    chunks: bool,
}

pub(super) async fn watch(context: &Context, args: &Watch) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    if args.chunks {
        return follow(context, &agent_id, &run_id).await;
    }
    let mut changes = context.client.runs().watch(v1::WatchRunRequest {
        agent_id,
        run_id,
        from_revision: args.from,
        ..Default::default()
    });
    let mut last = None;
    while let Some(change) = changes.next().await? {
        print(context.output(), &change)?;
        last = change.run.or(last);
    }
    end(context.output(), last)
}

/// Prints what the steps of a run emit, then its result.
pub(super) async fn follow(context: &Context, agent_id: &str, run_id: &str) -> Done {
    let output = context.output();
    let mut changes = context.client.runs().watch(v1::WatchRunRequest {
        agent_id: agent_id.to_owned(),
        run_id: run_id.to_owned(),
        chunks: true,
        ..Default::default()
    });
    let mut last = None;
    let mut in_line = false;
    while let Some(change) = changes.next().await? {
        if output.is_structured() || output == Output::Name {
            print(output, &change)?;
        } else {
            in_line = tell(&change, in_line)?;
        }
        last = change.run.or(last);
    }
    if in_line {
        write(b"\n")?;
    }
    end(output, last)
}

/// Chunks to stdout, the rest to stderr. Whether stdout is in the middle of a line.
fn tell(change: &v1::WatchRunResponse, mut in_line: bool) -> Result<bool, Problem> {
    let say = |text: &str, in_line: &mut bool| {
        if std::mem::take(in_line) {
            eprintln!();
        }
        eprintln!("{text}");
    };
    if change.gap {
        say("some of the output was lost", &mut in_line);
    }
    for chunk in &change.chunks {
        if chunk.restarted {
            let (step, attempt) = (chunk.step, chunk.attempt);
            say(&format!("step {step} begins anew, attempt {attempt}"), &mut in_line);
        }
        let text = emitted(chunk.value.as_ref());
        in_line = !text.ends_with(b"\n");
        write(&text)?;
    }
    if change.run.is_some() {
        say(&line(change), &mut in_line);
    }
    Ok(in_line)
}

/// A string as it is, anything else as the worker sent it.
fn emitted(value: Option<&v1::Payload>) -> Vec<u8> {
    let Some(value) = value else { return Vec::new() };
    match json::payload(value) {
        serde_json::Value::String(text) => text.into_bytes(),
        _ => value.data.to_vec(),
    }
}

fn print(output: Output, change: &v1::WatchRunResponse) -> Result<(), Problem> {
    write_told(output, change, || line(change), &change.revision.to_string())
}

/// `02:14:07.123Z  running    step 2 answer: leased by w1, attempt 1`.
fn line(change: &v1::WatchRunResponse) -> String {
    let at = human::at(change.at.as_ref());
    let time = at.get(11..).unwrap_or(&at);
    let state =
        change.run.as_ref().map_or_else(|| "-".to_owned(), |run| human::run_state(run.state()));
    let what = change.step.as_ref().map_or_else(String::new, |step| {
        let mut text =
            format!("step {} {}: {}", step.number, step.name, human::step_state(step.state()));
        if !step.worker_id.is_empty() {
            text.push_str(&format!(" by {}", step.worker_id));
        }
        if step.attempt > 1 {
            text.push_str(&format!(", attempt {} of {}", step.attempt, step.max_attempts));
        }
        if let Some(failure) = &step.failure {
            text.push_str(&format!(", {}: {}", failure.reason, failure.message));
        }
        text
    });
    format!("{time:14}{state:11}{what}").trim_end().to_owned()
}

/// The result, for people; an error when the run did not complete.
fn end(output: Output, run: Option<v1::Run>) -> Done {
    let Some(run) = run else { return Ok(problem::OK) };
    if !output.is_structured() && output != Output::Name {
        value(run.output.as_ref())?;
    }
    match ended(&run.run_id, run.state(), run.end_reason(), run.failure.as_ref()) {
        None => Ok(problem::OK),
        Some(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let step = v1::Step {
            number: 2,
            name: "answer".into(),
            state: v1::StepState::Leased.into(),
            worker_id: "w1".into(),
            attempt: 2,
            max_attempts: 4,
            ..Default::default()
        };
        let change = v1::WatchRunResponse {
            at: pinrail_proto::time::timestamp(1_700_000_000_123),
            run: Some(v1::Run { state: v1::RunState::Running.into(), ..Default::default() }),
            step: Some(step),
            ..Default::default()
        };
        assert_eq!(
            line(&change),
            "22:13:20.123Z running    step 2 answer: leased by w1, attempt 2 of 4"
        );
    }
}
