//! `run result`, and waiting for one.

use std::time::Duration;

use clap::Args;
use pinrail_proto::v1;
use tokio::time::Instant;

use super::super::context::{Context, Done};
use super::super::flags::{RunId, api_duration};
use super::super::human;
use super::super::problem::{self, Problem};
use super::super::settings::Output;
use super::super::view::{View, write};

/// How long the member that is asked holds one question.
const QUESTION: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Args)]
pub struct ResultOf {
    #[command(flatten)]
    run: RunId,
    /// Wait until the run is over, or for as long as --timeout says
    #[arg(long)]
    wait: bool,
}

pub(super) async fn result(context: &Context, args: &ResultOf) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    if args.wait {
        return wait_for(context, &agent_id, &run_id).await;
    }
    let answer = ask(context, &agent_id, &run_id, Duration::ZERO).await?;
    if answer.closed {
        return shown(context, &answer);
    }
    if context.output().is_structured() {
        context.show(&View::object(&answer, &run_id, String::new()))?;
    }
    let state = human::run_state(answer.state());
    Err(Problem::timed_out(format!("run {run_id} is {state}"))
        .next(format!("pinrail run result {run_id} --wait")))
}

/// Waits for the end of a run and prints its result; without a `--timeout` for as long as the run takes.
pub(super) async fn wait_for(context: &Context, agent: &str, run_id: &str) -> Done {
    let limit = &context.settings.timeout;
    let mut run_id = run_id.to_owned();
    let until = (limit.origin != "default").then(|| Instant::now() + limit.value);
    loop {
        let left = until.map_or(QUESTION, |until| until.saturating_duration_since(Instant::now()));
        let answer = ask(context, agent, &run_id, left.min(QUESTION)).await?;
        if !answer.continued_to.is_empty() {
            run_id = answer.continued_to;
        } else if answer.closed {
            return shown(context, &answer);
        } else if until.is_some_and(|until| until <= Instant::now()) {
            let state = human::run_state(answer.state());
            let message = format!("run {run_id} is {state} after {}", human::span(limit.value));
            return Err(
                Problem::timed_out(message).next(format!("pinrail run result {run_id} --wait"))
            );
        }
    }
}

async fn ask(
    context: &Context,
    agent: &str,
    run_id: &str,
    wait: Duration,
) -> Result<v1::GetResultResponse, Problem> {
    let request = v1::GetResultRequest {
        agent_id: agent.to_owned(),
        run_id: run_id.to_owned(),
        wait: Some(api_duration(wait)),
        read: context.read(),
        ..Default::default()
    };
    Ok(context.client.runs().result(request).await?)
}

/// Prints the result: the value itself for people, the message for programs.
fn shown(context: &Context, answer: &v1::GetResultResponse) -> Done {
    match context.output() {
        Output::Table | Output::Wide => value(answer.output.as_ref())?,
        Output::Json | Output::Jsonl | Output::Yaml | Output::Name => {
            context.show(&View::object(answer, &answer.run_id, String::new()))?;
        }
    }
    match ended(&answer.run_id, answer.state(), answer.end_reason(), answer.failure.as_ref()) {
        None => Ok(problem::OK),
        Some(problem) => Err(problem),
    }
}

/// Prints a payload as it is.
pub(crate) fn value(payload: Option<&v1::Payload>) -> Result<(), Problem> {
    let Some(payload) = payload else { return Ok(()) };
    write(&payload.data)?;
    let text = payload.content_type.starts_with("text/")
        || payload.content_type.starts_with("application/json");
    if text && !payload.data.ends_with(b"\n") { write(b"\n") } else { Ok(()) }
}

/// The error of a run that is over and did not complete.
pub(super) fn ended(
    run_id: &str,
    state: v1::RunState,
    end_reason: v1::EndReason,
    failure: Option<&v1::Failure>,
) -> Option<Problem> {
    // The result of a run that another one continues is that one's.
    if matches!(state, v1::RunState::Completed | v1::RunState::Continued) {
        return None;
    }
    let state = human::run_state(state);
    let mut problem = match failure {
        Some(failure) => Problem::new(
            if failure.reason.is_empty() { "FAILED" } else { &failure.reason },
            problem::RUN_ENDED,
            format!("run {run_id} {state}: {}", failure.message),
        ),
        None => Problem::new(
            &state.to_uppercase(),
            problem::RUN_ENDED,
            format!("run {run_id} {state}: {}", human::end_reason(end_reason)),
        ),
    };
    problem.next.push(format!("pinrail run explain {run_id}"));
    Some(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_completed_runs_are_no_error() {
        let none = v1::EndReason::Unspecified;
        assert_eq!(ended("r", v1::RunState::Completed, none, None), None);
        let failure =
            v1::Failure { reason: "CARD".into(), message: "no".into(), ..Default::default() };
        let problem = ended("r", v1::RunState::Failed, none, Some(&failure)).expect("failed");
        assert_eq!((problem.reason.as_str(), problem.exit), ("CARD", 11));
        let problem =
            ended("r", v1::RunState::Expired, v1::EndReason::MaxAge, None).expect("expired");
        assert_eq!(problem.message.as_ref(), "run r expired: max_age");
        assert_eq!(problem.exit, 11);
    }
}
