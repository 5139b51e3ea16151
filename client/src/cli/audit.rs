//! `audit`: who did what, and what it changed.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use pinrail_proto::{time, v1};

use super::context::{Context, Done};
use super::flags::{self, ListFlags};
use super::human;
use super::problem;
use super::settings::Output;
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `audit`.
#[derive(Debug, Clone, Subcommand)]
pub enum Audit {
    /// Administrative actions, the newest first
    #[command(
        after_help = "Examples:\n  pinrail audit list support --since 7d\n  pinrail audit list --actor ci-main --action switch -o json"
    )]
    List(List),
    /// Compute the chain again: finds a gap and an altered entry; exit code 10 if there is one
    #[command(
        after_help = "Examples:\n  pinrail audit verify\n  pinrail audit verify --expect 812:5f70…\n  pinrail audit verify --local --endpoint pinrail-1:7420"
    )]
    Verify(Verify),
}

#[derive(Debug, Clone, Args)]
pub struct List {
    /// Only this agent
    #[arg(value_name = "AGENT", default_value = "", hide_default_value = true)]
    agent: String,
    /// Only what this person or program did
    #[arg(long, value_name = "WHO", default_value = "", hide_default_value = true)]
    actor: String,
    /// Only this action: `switch`, `agent update`
    #[arg(long, value_name = "ACTION", default_value = "", hide_default_value = true)]
    action: String,
    /// Only what was done within this time
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    since: Option<Duration>,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// An entry that was noted down earlier, with its hash: the chain must hold it
    #[arg(long, value_name = "SEQUENCE:HASH", value_parser = expected)]
    expect: Option<(u64, String)>,
}

fn expected(text: &str) -> Result<(u64, String), String> {
    let parts = text.split_once(':').and_then(|(sequence, hash)| {
        let sequence = sequence.parse().ok().filter(|it| *it > 0)?;
        (!hash.is_empty()).then(|| (sequence, hash.to_lowercase()))
    });
    parts.ok_or_else(|| "an entry and its hash are SEQUENCE:HASH".to_owned())
}

pub(super) async fn run(context: &Context, verb: &Audit) -> Done {
    match verb {
        Audit::List(args) => list(context, args).await,
        Audit::Verify(args) => verify(context, args).await,
    }
}

async fn list(context: &Context, args: &List) -> Done {
    let agent_id = match args.agent.as_str() {
        "" => String::new(),
        agent => context.agent(agent)?,
    };
    let agent_id = agent_id.as_str();
    context
        .watch(args.list.watch, || async move {
            let since = args.since.map(|since| {
                human::now_ms().saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            });
            let (entries, next_page_token, revision) = context
                .pages(&args.list, |page_size, page_token| async move {
                    let request = v1::ListAuditRequest {
                        agent_id: agent_id.to_owned(),
                        actor: args.actor.clone(),
                        action: args.action.clone(),
                        since: since.and_then(time::timestamp),
                        page_size,
                        page_token,
                        read: context.read(),
                        ..Default::default()
                    };
                    // Without an agent everything is meant: what was done to the cluster is of no namespace.
                    let audit = context.client.audit();
                    let page = match agent_id {
                        "" => audit.list_all(request).await?,
                        _ => audit.list(request).await?,
                    };
                    Ok((page.entries, page.next_page_token, page.revision))
                })
                .await?;
            let names = entries.iter().map(|entry| entry.sequence.to_string()).collect();
            let table = table(&entries, context.output());
            let page = v1::ListAuditResponse { entries, next_page_token, revision };
            Ok(View::list(&page, "entries", names, table))
        })
        .await
}

fn table(entries: &[v1::AuditEntry], output: Output) -> Table {
    let mut table = Table::new(
        &["ENTRY", "TIME", "ACTION", "AGENT", "OBJECT", "BY", "REASON", "CHANGED"],
        &["REVISION", "REQUEST", "HASH"],
    );
    let wide = matches!(output, Output::Wide);
    for it in entries {
        let changed = changes(it);
        table.row(vec![
            it.sequence.to_string(),
            human::at(it.at.as_ref()),
            it.action.clone(),
            human::or_dash(if it.agent_id.is_empty() { &it.namespace } else { &it.agent_id }),
            human::or_dash(if it.run_id.is_empty() { &it.bundle_id } else { &it.run_id }),
            human::or_dash(&it.actor),
            human::or_dash(&it.reason),
            human::or_dash(&if wide { changed } else { human::cut(&changed, 60) }),
            it.revision.to_string(),
            human::or_dash(&it.request_id),
            it.hash.clone(),
        ]);
    }
    table
}

/// `live v41→v42, standby →v41`
fn changes(it: &v1::AuditEntry) -> String {
    let mut sides: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (key, value) in &it.before {
        sides.entry(key).or_default().0 = value;
    }
    for (key, value) in &it.after {
        sides.entry(key).or_default().1 = value;
    }
    let told = |(key, (before, after)): (&&str, &(&str, &str))| format!("{key} {before}→{after}");
    sides.iter().map(told).collect::<Vec<_>>().join(", ")
}

async fn verify(context: &Context, args: &Verify) -> Done {
    let (expect_sequence, expect_hash) = args.expect.clone().unwrap_or_default();
    let mut request = v1::VerifyAuditRequest {
        expect_sequence,
        expect_hash,
        read: context.read(),
        ..Default::default()
    };
    let mut checked = 0;
    let answer = loop {
        let answer = context.client.audit().verify(request.clone()).await?;
        checked += answer.checked;
        if answer.broken_sequence.is_some() || answer.next_sequence == 0 {
            break v1::VerifyAuditResponse { checked, ..answer };
        }
        request.from_sequence = answer.next_sequence;
        request.from_hash = answer.hash;
    };
    let verdict = match &answer.broken_sequence {
        Some(broken) => format!("broken at {broken}: {}", answer.problem),
        None => "whole".to_owned(),
    };
    let text = pairs(&[
        ("chain", verdict),
        ("entries", format!("{} to {}", answer.first_sequence, answer.last_sequence)),
        ("checked", answer.checked.to_string()),
        ("note", format!("{}:{}", answer.last_sequence, answer.hash)),
    ]);
    context.show(&View::object(&answer, &answer.last_sequence.to_string(), text))?;
    Ok(if answer.broken_sequence.is_none() { problem::OK } else { problem::DIFFERENT })
}
