//! `switch` and `rollback`: the two changes of a route.

use clap::{Args, ValueEnum};
use pinrail_proto::v1;

use super::bundle::named;
use super::context::{Context, Done};
use super::drain::sentence;
use super::flags::WriteFlags;
use super::human;
use super::problem::Problem;
use super::table::pairs;
use super::view::View;

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail switch support v42 --reason \"SUP-812\"\n  pinrail switch support v42 --dry-run"
)]
pub struct Switch {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Bundle that becomes live
    #[arg(value_name = "BUNDLE")]
    bundle: String,
    /// Even when the bundle was rolled back; needs --reason
    #[arg(long, requires = "reason")]
    force: bool,
    /// Only if the route has this epoch
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    expect_epoch: u64,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail rollback support\n  pinrail rollback support --from v42 --in-flight restart --reason \"SUP-812\""
)]
pub struct Rollback {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Bundle to leave; default: the newest one with traffic, the candidate in a canary or else the live one
    #[arg(long, value_name = "BUNDLE")]
    from: Option<String>,
    /// What becomes of its open runs; default: the policy's
    #[arg(long, value_name = "WHAT")]
    in_flight: Option<InFlight>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InFlight {
    /// They go on until their pins end
    Keep,
    /// They are cancelled
    Cancel,
    /// They start again on the good bundle under the same run id
    Restart,
}

pub(super) async fn switch(context: &Context, args: &Switch) -> Done {
    let request = v1::SwitchRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: named(&args.bundle)?,
        force: args.force,
        expected_epoch: args.expect_epoch,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.releases().switch(request).await?;
    if answer.already {
        eprintln!("{} was live already", answer.to_bundle_id);
    }
    let mut text = pairs(&[
        ("agent", answer.agent_id.clone()),
        ("from", human::or_dash(&answer.from_bundle_id)),
        ("to", answer.to_bundle_id.clone()),
        ("epoch", answer.epoch.to_string()),
        ("revision", answer.revision.to_string()),
    ]);
    let skipped: Vec<String> = answer.skipped().map(human::stage).collect();
    if let Some(drain) = &answer.drain {
        text.push_str(&sentence(drain));
        let oldest = drain.oldest_pinned_at.as_ref();
        let oldest = oldest.map_or_else(String::new, |at| human::age(Some(at), human::now_ms()));
        text.push_str(&pairs(&[("oldest", oldest)]));
    }
    text.push_str(&pairs(&[("not passed", skipped.join(", "))]));
    if args.write.dry_run && !answer.from_bundle_id.is_empty() {
        text.push_str(&pairs(&[("way back", "one command, below a second".to_owned())]));
    }
    if !answer.from_bundle_id.is_empty() && !answer.already {
        text.push_str(&pairs(&[("back", format!("pinrail rollback {}", args.agent))]));
    }
    context.show(&View::object(&answer, &answer.to_bundle_id, text))
}

pub(super) async fn rollback(context: &Context, args: &Rollback) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let options = context.write(&args.write)?;
    let from = match &args.from {
        Some(from) => named(from)?,
        None => newest_with_traffic(context, &agent_id).await?,
    };
    if !from.is_empty() {
        eprintln!("leaving {from}");
    }
    let in_flight = match args.in_flight {
        None => v1::InFlight::Unspecified,
        Some(InFlight::Keep) => v1::InFlight::Keep,
        Some(InFlight::Cancel) => v1::InFlight::Cancel,
        Some(InFlight::Restart) => v1::InFlight::Restart,
    };
    let request = v1::RollbackRequest {
        agent_id,
        from_bundle_id: from,
        in_flight: in_flight.into(),
        options,
        from_inferred: args.from.is_none(),
        ..Default::default()
    };
    let answer = context.client.releases().rollback(request).await?;
    if answer.already {
        eprintln!("{} had no traffic any more: this is the earlier answer", answer.from_bundle_id);
    }
    context.show(&View::object(&answer, &answer.to_bundle_id, text(&answer)))
}

/// The candidate in canary, else the live bundle; or nothing: then the server says what is wrong.
async fn newest_with_traffic(context: &Context, agent: &str) -> Result<String, Problem> {
    let request = v1::GetAgentRequest { agent_id: agent.to_owned(), ..Default::default() };
    let answer = context.client.agents().get(request).await?;
    let route = answer.agent.and_then(|agent| agent.route).unwrap_or_default();
    Ok(match route.canary_bundle_id.as_str() {
        "" => route.live_bundle_id,
        candidate => candidate.to_owned(),
    })
}

fn text(answer: &v1::RollbackResponse) -> String {
    let mut text = pairs(&[
        ("agent", answer.agent_id.clone()),
        ("left", answer.from_bundle_id.clone()),
        ("live", answer.to_bundle_id.clone()),
        ("epoch", answer.epoch.to_string()),
        ("revision", answer.revision.to_string()),
        ("in flight", human::in_flight(answer.in_flight())),
    ]);
    if let Some(drain) = &answer.drain {
        text.push_str(&sentence(drain));
    }
    let hidden = match answer.memory_keys_hidden {
        0 => String::new(),
        keys => format!(
            "{} written on {} no longer seen",
            human::count(keys, "key"),
            answer.from_bundle_id
        ),
    };
    let workers = match answer.target_workers {
        0 => String::new(),
        workers => format!(
            "{} {}, {} free",
            answer.to_bundle_id,
            workers,
            human::count(answer.target_free_slots, "slot")
        ),
    };
    text.push_str(&pairs(&[("memory", hidden), ("workers", workers)]));
    for effect in &answer.side_effects {
        let class = human::side_effects(effect.class());
        let calls = human::count(effect.calls, "call");
        text.push_str(&pairs(&[("not undone", format!("{calls} of {} ({class})", effect.tool))]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_says_what_it_left_and_what_it_cannot_undo() {
        let effect = v1::SideEffect {
            tool: "refund".into(),
            class: v1::SideEffects::Destructive.into(),
            calls: 1,
        };
        let text = text(&v1::RollbackResponse {
            from_bundle_id: "v42".into(),
            to_bundle_id: "v41".into(),
            memory_keys_hidden: 2,
            side_effects: vec![effect],
            target_workers: 6,
            target_free_slots: 192,
            ..Default::default()
        });
        for part in [
            "left",
            "v42",
            "2 keys written on v42",
            "1 call of refund (destructive)",
            "192 slots free",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
