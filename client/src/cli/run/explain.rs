//! `run explain`: the cause in one answer.

use clap::Args;
use pinrail_proto::v1;

use super::super::bundle;
use super::super::context::{Context, Done};
use super::super::flags::{ReadFlags, RunId};
use super::super::human;
use super::super::signal;
use super::super::view::View;
use super::read::{one, step_table};

#[derive(Debug, Clone, Args)]
pub struct Explain {
    #[command(flatten)]
    run: RunId,
    #[command(flatten)]
    read: ReadFlags,
}

pub(super) async fn explain(context: &Context, args: &Explain) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    context
        .watch(args.read.watch, || async {
            let request = v1::ExplainRunRequest {
                agent_id: agent_id.clone(),
                run_id: run_id.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.runs().explain(request).await?;
            Ok(View::object(&answer, &run_id, text(&answer)))
        })
        .await
}

fn text(answer: &v1::ExplainRunResponse) -> String {
    let mut text = answer.run.as_ref().map(one).unwrap_or_default();
    if !answer.steps.is_empty() {
        text.push_str(&format!("\nsteps\n{}", indent(&step_table(&answer.steps).render(false))));
    }
    if let Some(it) = &answer.bundle {
        let state = human::bundle_state(it.state());
        let manifest = it.manifest.clone().unwrap_or_default();
        text.push_str(&format!("\nbundle {} ({state})\n", it.bundle_id));
        text.push_str(&indent(&bundle::parts(&manifest)));
    }
    match &answer.previous_bundle {
        None => text.push_str("\nno bundle was live before it\n"),
        Some(previous) if answer.changes.is_empty() => {
            text.push_str(&format!("\nnothing differs from {}\n", previous.bundle_id));
        }
        Some(previous) => {
            let table = bundle::changes(&answer.changes).render(false);
            text.push_str(&format!("\nwhat differs from {}\n", previous.bundle_id));
            text.push_str(&indent(&table));
        }
    }
    let both: Vec<_> = answer.cohort.iter().chain(&answer.previous_cohort).collect();
    if !both.is_empty() {
        text.push_str("\nwhat their runs are like\n");
        text.push_str(&indent(&signal::cohorts(both.into_iter()).render(false)));
    }
    for watch in &answer.watches {
        let phase = human::stage(watch.phase());
        text.push_str(&format!("\nsignals of {} in {phase}\n", watch.release_id));
        text.push_str(&indent(&signal::line(watch)));
    }
    text
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_known_is_said() {
        let run = v1::Run { run_id: "r".into(), ..Default::default() };
        let step = v1::Step { number: 1, name: "plan".into(), ..Default::default() };
        let bundle = |id: &str| v1::Bundle { bundle_id: id.into(), ..Default::default() };
        let change = v1::PartChange {
            part: "prompts".into(),
            name: "system".into(),
            kind: v1::ChangeKind::Changed.into(),
            before: "old\nwords".into(),
            after: "new".into(),
        };
        let text = text(&v1::ExplainRunResponse {
            run: Some(run),
            steps: vec![step],
            bundle: Some(bundle("v2")),
            previous_bundle: Some(bundle("v1")),
            changes: vec![change],
            revision: 7,
            cohort: Some(v1::Cohort { bundle_id: "v2".into(), ..Default::default() }),
            ..Default::default()
        });
        for part in [
            "run",
            "plan",
            "bundle v2",
            "what differs from v1",
            "changed",
            "old⏎words",
            "their runs",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
