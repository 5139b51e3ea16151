//! `run watch`: the durable changes of a run as they happen.

use clap::Args;
use pinrail_proto::v1;

use super::super::context::{Context, Done};
use super::super::flags::RunId;
use super::super::human;
use super::super::json;
use super::super::problem::{self, Problem};
use super::super::settings::Output;
use super::super::view::write;
use super::result::{ended, value};

#[derive(Debug, Clone, Args)]
pub struct Watch {
    #[command(flatten)]
    run: RunId,
    /// Only changes after this revision; 0: the present state first
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    from: u64,
}

pub(super) async fn watch(context: &Context, args: &Watch) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
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

fn print(output: Output, change: &v1::WatchRunResponse) -> Result<(), Problem> {
    let line = match output {
        Output::Table | Output::Wide => line(change),
        // A stream has no end to close a list with: one object a line.
        Output::Json | Output::Jsonl => json::of(change).to_string(),
        Output::Yaml => {
            let yaml = serde_yaml_ng::to_string(&json::of(change));
            format!("---\n{}", yaml.map_err(|error| Problem::usage(error.to_string()))?.trim_end())
        }
        Output::Name => change.revision.to_string(),
    };
    write(format!("{line}\n").as_bytes())
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
