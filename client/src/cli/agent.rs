//! `agent`: agents and their policy.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pinrail_proto::{reason, v1};

use super::context::{Context, Done};
use super::file;
use super::flags::{ListFlags, ReadFlags, WriteFlags};
use super::human;
use super::json;
use super::problem::{self, Problem};
use super::table::{Table, pairs};
use super::view::{Body, View};

/// Verbs of `agent`.
#[derive(Debug, Clone, Subcommand)]
pub enum Agent {
    /// Create an agent
    #[command(
        after_help = "Examples:\n  pinrail agent create support\n  pinrail agent create support -f agent.toml"
    )]
    Create(WithFile),
    /// Create an agent or bring its policy to what the file says; --dry-run prints the difference and exits 10
    #[command(after_help = "Example:\n  pinrail agent apply support -f agent.toml --dry-run")]
    Apply(WithFile),
    /// List the agents
    #[command(after_help = "Example:\n  pinrail agent list -o wide")]
    List(ListFlags),
    /// Show an agent with its policy
    #[command(after_help = "Example:\n  pinrail agent show support -o yaml")]
    Show(Show),
    /// Replace the policy of an agent
    #[command(
        after_help = "Example:\n  pinrail agent update support -f agent.toml --reason \"SUP-812\""
    )]
    Update(WithFile),
    /// Delete an agent without open runs; asks first
    #[command(after_help = "Example:\n  pinrail agent delete support --yes")]
    Delete(Delete),
    /// The brake: no new leases; starts wait, or are refused with --reject; never asks
    #[command(
        after_help = "Examples:\n  pinrail agent pause support\n  pinrail agent pause support --bundle v42 --reject"
    )]
    Pause(Pause),
    /// End a pause
    #[command(after_help = "Example:\n  pinrail agent resume support")]
    Resume(Resume),
}

#[derive(Debug, Clone, Args)]
pub struct WithFile {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Policy; without it every value is its default
    #[arg(short, long, value_name = "agent.toml")]
    file: Option<PathBuf>,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Delete {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Pause {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    /// Refuse starts instead of letting them wait
    #[arg(long)]
    reject: bool,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Resume {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only this bundle
    #[arg(long, value_name = "BUNDLE", default_value = "", hide_default_value = true)]
    bundle: String,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Agent) -> Done {
    match verb {
        Agent::Create(args) => create(context, args).await,
        Agent::Apply(args) => apply(context, args).await,
        Agent::List(args) => list(context, args).await,
        Agent::Show(args) => show(context, args).await,
        Agent::Update(args) => update(context, args).await,
        Agent::Delete(args) => delete(context, args).await,
        Agent::Pause(args) => pause(context, args).await,
        Agent::Resume(args) => resume(context, args).await,
    }
}

fn policy(args: &WithFile) -> Result<v1::Policy, Problem> {
    Ok(match &args.file {
        Some(path) => file::agent::load(path)?,
        None => file::agent::default_policy(),
    })
}

async fn create(context: &Context, args: &WithFile) -> Done {
    let request = v1::CreateAgentRequest {
        agent_id: context.agent(&args.agent)?,
        policy: Some(policy(args)?),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.agents().create(request).await?;
    if answer.already {
        eprintln!("the agent was there already, with this policy");
    }
    let text = one(answer.agent.as_ref(), answer.revision);
    context.show(&View::object(&answer, &args.agent, text))
}

async fn update(context: &Context, args: &WithFile) -> Done {
    if args.file.is_none() {
        return Err(Problem::usage("agent update needs the policy: -f agent.toml"));
    }
    put(context, args, policy(args)?).await
}

async fn put(context: &Context, args: &WithFile, policy: v1::Policy) -> Done {
    let request = v1::UpdateAgentRequest {
        agent_id: context.agent(&args.agent)?,
        policy: Some(policy),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.agents().update(request).await?;
    let text = one(answer.agent.as_ref(), answer.revision);
    context.show(&View::object(&answer, &args.agent, text))
}

async fn apply(context: &Context, args: &WithFile) -> Done {
    let wanted = policy(args)?;
    let request = v1::GetAgentRequest {
        agent_id: context.agent(&args.agent)?,
        read: context.read(),
        ..Default::default()
    };
    let present = match context.client.agents().get(request).await {
        Ok(answer) => answer.agent.unwrap_or_default(),
        Err(error) if error.is_rejected_with(&reason::AGENT_NOT_FOUND) => {
            if args.write.dry_run {
                return difference(
                    context,
                    &args.agent,
                    &[("agent".into(), "-".into(), "created".into())],
                );
            }
            return create(context, args).await;
        }
        Err(error) => return Err(error.into()),
    };
    let changes = changes(present.policy.as_ref(), &wanted);
    if args.write.dry_run {
        return difference(context, &args.agent, &changes);
    }
    if changes.is_empty() {
        eprintln!("nothing to change");
        let text = one(Some(&present), present.revision);
        return context.show(&View::object(&present, &args.agent, text));
    }
    put(context, args, wanted).await
}

/// Key, before and after.
type Change = (String, String, String);

fn difference(context: &Context, agent: &str, changes: &[Change]) -> Done {
    let mut table = Table::new(&["KEY", "BEFORE", "AFTER"], &[]);
    let mut items = Vec::new();
    for (key, before, after) in changes {
        table.row(vec![key.clone(), before.clone(), after.clone()]);
        items.push(serde_json::json!({ "key": key, "before": before, "after": after }));
    }
    let names = changes.iter().map(|change| change.0.clone()).collect();
    let json = serde_json::json!({ "agent_id": agent, "changes": items });
    let body =
        if changes.is_empty() { Body::Text("no difference\n".into()) } else { Body::Table(table) };
    context.show(&View::other(json, Some("changes"), names, body))?;
    Ok(if changes.is_empty() { problem::OK } else { problem::DIFFERENT })
}

/// What differs between two policies, by dotted key.
fn changes(present: Option<&v1::Policy>, wanted: &v1::Policy) -> Vec<Change> {
    let present = present.cloned().unwrap_or_default();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    flatten("", &json::of(&present), &mut before);
    flatten("", &json::of(wanted), &mut after);
    let find = |list: &[(String, String)], key: &str| {
        list.iter().find(|entry| entry.0 == key).map_or("-".to_owned(), |entry| entry.1.clone())
    };
    let mut keys: Vec<String> = before.iter().chain(&after).map(|entry| entry.0.clone()).collect();
    keys.sort();
    keys.dedup();
    let pair = |key: String| (key.clone(), find(&before, &key), find(&after, &key));
    keys.into_iter().map(pair).filter(|(_, before, after)| before != after).collect()
}

fn flatten(path: &str, json: &serde_json::Value, into: &mut Vec<(String, String)>) {
    match json {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        serde_json::Value::String(text) => into.push((path.to_owned(), text.clone())),
        other => into.push((path.to_owned(), other.to_string())),
    }
}

async fn list(context: &Context, args: &ListFlags) -> Done {
    context.watch(args.watch, || agents(context, args)).await
}

/// The agents as a view; `status` without an agent shows the same.
pub(super) async fn agents(context: &Context, args: &ListFlags) -> Result<View, Problem> {
    let (agents, next_page_token, revision) = context
        .pages(args, |page_size, page_token| async move {
            let request = v1::ListAgentsRequest {
                page_size,
                page_token,
                read: context.read(),
                ..Default::default()
            };
            let page = context.client.agents().list(request).await?;
            Ok((page.agents, page.next_page_token, page.revision))
        })
        .await?;
    let now = human::now_ms();
    let mut table = Table::new(
        &["AGENT", "LIVE", "STANDBY", "OPEN RUNS", "LIVE SINCE", "STATE"],
        &["EPOCH", "POLICY", "DESCRIPTION"],
    );
    for agent in &agents {
        let route = agent.route.clone().unwrap_or_default();
        let description = agent.policy.as_ref().map(|policy| policy.description.as_str());
        table.row(vec![
            agent.agent_id.clone(),
            human::or_dash(&route.live_bundle_id),
            human::or_dash(&route.standby_bundle_id),
            agent.open_runs.to_string(),
            human::age(route.changed_at.as_ref(), now),
            pause_word(agent.pause.as_ref()),
            route.epoch.to_string(),
            agent.policy_revision.to_string(),
            human::or_dash(description.unwrap_or_default()),
        ]);
    }
    let names = agents.iter().map(|agent| agent.agent_id.clone()).collect();
    let page = v1::ListAgentsResponse { agents, next_page_token, revision };
    Ok(View::list(&page, "agents", names, table))
}

pub(super) fn pause_word(pause: Option<&v1::Pause>) -> String {
    match pause {
        Some(pause) if pause.paused && pause.reject => "paused, starts refused".to_owned(),
        Some(pause) if pause.paused => "paused".to_owned(),
        Some(pause) if !pause.bundle_ids.is_empty() => {
            format!("paused: {}", pause.bundle_ids.join(", "))
        }
        Some(_) | None => "active".to_owned(),
    }
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::GetAgentRequest {
                agent_id: agent_id.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.agents().get(request).await?;
            let mut text = one(answer.agent.as_ref(), answer.revision);
            let policy = answer.agent.as_ref().and_then(|agent| agent.policy.clone());
            text.push_str("policy\n");
            text.push_str(&lines(&policy.unwrap_or_default()));
            Ok(View::object(&answer, &args.agent, text))
        })
        .await
}

/// What a policy says, a key a line; what is empty is left out.
fn lines(policy: &v1::Policy) -> String {
    let mut rows = Vec::new();
    flatten("", &json::of(policy), &mut rows);
    rows.retain(|(_, value)| !["", "{}", "[]"].contains(&value.as_str()));
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    rows.iter().map(|(key, value)| format!("  {key:width$}  {value}\n")).collect()
}

fn one(agent: Option<&v1::Agent>, revision: u64) -> String {
    let Some(agent) = agent else { return pairs(&[("revision", revision.to_string())]) };
    let route = agent.route.clone().unwrap_or_default();
    pairs(&[
        ("agent", agent.agent_id.clone()),
        ("namespace", agent.namespace.clone()),
        ("live", human::or_dash(&route.live_bundle_id)),
        ("standby", human::or_dash(&route.standby_bundle_id)),
        ("epoch", route.epoch.to_string()),
        ("state", pause_word(agent.pause.as_ref())),
        ("open runs", agent.open_runs.to_string()),
        ("policy", format!("revision {}", agent.policy_revision)),
        ("revision", revision.to_string()),
    ])
}

async fn delete(context: &Context, args: &Delete) -> Done {
    let agent_id = context.agent(&args.agent)?;
    context
        .confirm(&args.write, &format!("Delete agent {agent_id} with its bundles and memory?"))?;
    let request = v1::DeleteAgentRequest {
        agent_id,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.agents().delete(request).await?;
    let text = pairs(&[("deleted", args.agent.clone()), ("revision", answer.revision.to_string())]);
    context.show(&View::object(&answer, &args.agent, text))
}

async fn pause(context: &Context, args: &Pause) -> Done {
    let request = v1::PauseAgentRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: args.bundle.clone(),
        reject: args.reject,
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.agents().pause(request).await?;
    eprintln!(
        "held steps finish; pins still end at their caps; pinrail agent resume {}",
        args.agent
    );
    let text = one(answer.agent.as_ref(), answer.revision);
    context.show(&View::object(&answer, &args.agent, text))
}

async fn resume(context: &Context, args: &Resume) -> Done {
    let request = v1::ResumeAgentRequest {
        agent_id: context.agent(&args.agent)?,
        bundle_id: args.bundle.clone(),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.agents().resume(request).await?;
    let text = one(answer.agent.as_ref(), answer.revision);
    context.show(&View::object(&answer, &args.agent, text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn differences_are_named_by_key() {
        let present = file::agent::default_policy();
        assert_eq!(changes(Some(&present), &present), []);
        let wanted =
            file::agent::parse("a", "[runs]\nmax_age = '1h'", Path::new("")).expect("valid");
        let changes = changes(Some(&present), &wanted);
        let expected = |key: &str| (key.to_owned(), "21600s".to_owned(), "3600s".to_owned());
        assert_eq!(changes, [expected("runs.max_age"), expected("switch.drain_cap")]);
    }

    #[test]
    fn a_policy_is_shown_whole() {
        let lines = lines(&file::agent::default_policy());
        for line in [
            "  runs.max_age                                       21600s",
            "  signals.cost_per_completed_run.max_ratio_permille  1500",
            "  gates.shadow.share_bp                              [1000,10000]",
        ] {
            assert!(lines.lines().any(|shown| shown == line), "{line} in\n{lines}");
        }
        assert!(!lines.contains("hooks"), "{lines}");
    }
}
