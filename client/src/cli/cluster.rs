//! `cluster`: the members, their health, and changes of them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::flags::{ReadFlags, WriteFlags};
use super::human;
use super::problem::{self, Problem};
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `cluster`.
#[derive(Debug, Clone, Subcommand)]
pub enum Cluster {
    /// What one member knows; answers without a leader
    #[command(after_help = "Example:\n  pinrail cluster status")]
    Status(ReadFlags),
    /// The members; answers without a leader
    #[command(after_help = "Example:\n  pinrail cluster members -o wide")]
    Members(ReadFlags),
    /// A quorum read and a probe that commits: exits 0 healthy or degraded, 6 no quorum
    #[command(after_help = "Example:\n  pinrail cluster health")]
    Health(ReadFlags),
    /// Add a member; it becomes a voter once it has caught up
    #[command(after_help = "Example:\n  pinrail cluster add pinrail-3 pinrail-3.internal:7422")]
    Add(Add),
    /// Remove a member; asks first
    #[command(after_help = "Example:\n  pinrail cluster remove pinrail-0 --yes")]
    Remove(Remove),
    /// Hand the leadership over
    #[command(
        after_help = "Examples:\n  pinrail cluster transfer-leader\n  pinrail cluster transfer-leader pinrail-1"
    )]
    TransferLeader(TransferLeader),
    /// Go on with one stopped member after the majority was lost for good; asks first
    #[command(
        after_help = "Example, on the member that is left, while its server is stopped:\n  pinrail cluster recover -f /etc/pinrail/server.toml --reason \"rack 2 burnt\" --dry-run"
    )]
    Recover(Recover),
    /// Backups of the whole cluster
    #[command(subcommand)]
    Snapshot(super::snapshot::Snapshot),
}

#[derive(Debug, Clone, Args)]
pub struct Add {
    /// Name of the new member
    #[arg(value_name = "NODE")]
    name: String,
    /// Where it listens for peers
    #[arg(value_name = "HOST:PORT")]
    peer: String,
    /// Keep it a learner
    #[arg(long)]
    learner: bool,
}

#[derive(Debug, Clone, Args)]
pub struct Remove {
    /// Name of the member
    #[arg(value_name = "NODE")]
    name: String,
    /// Even when the others could not carry on
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Flags of `cluster recover`, which the binary carries out: it opens a data directory.
#[derive(Debug, Clone, Args)]
pub struct Recover {
    /// server.toml of this member
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub reason: String,
    /// Show what would be lost, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Clone, Args)]
pub struct TransferLeader {
    /// Name of the next leader; default: the follower that is furthest
    #[arg(value_name = "NODE", default_value = "", hide_default_value = true)]
    to: String,
}

pub(super) async fn run(context: &Context, verb: &Cluster) -> Done {
    match verb {
        Cluster::Status(args) => status(context, args).await,
        Cluster::Members(args) => members(context, args).await,
        Cluster::Health(args) => health(context, args).await,
        Cluster::Add(args) => add(context, args).await,
        Cluster::Remove(args) => remove(context, args).await,
        Cluster::TransferLeader(args) => transfer_leader(context, args).await,
        Cluster::Recover(_) => {
            Err(Problem::usage("this command line opens no data directory: pinrail's own does"))
        }
        Cluster::Snapshot(verb) => super::snapshot::run(context, verb).await,
    }
}

async fn status(context: &Context, args: &ReadFlags) -> Done {
    context
        .watch(args.watch, || async {
            let answer = context.client.cluster().status().await?;
            let leader = match answer.leader.as_str() {
                "" => "none is known".to_owned(),
                leader => format!("{leader} ({})", answer.leader_grpc_address),
            };
            let age = answer.age.as_ref();
            let mut text = pairs(&[
                ("cluster", format!("{} ({})", answer.cluster, answer.cluster_id)),
                ("answered by", answer.node.clone()),
                ("leader", leader),
                (
                    "heard of it",
                    age.map_or("never".into(), |age| format!("{} ago", human::api_span(Some(age)))),
                ),
                ("term", answer.term.to_string()),
                (
                    "log",
                    format!(
                        "{} written, {} applied, snapshot at {}",
                        answer.last_log_index, answer.applied_index, answer.snapshot_index
                    ),
                ),
                ("revision", answer.revision.to_string()),
                ("time", human::at(answer.cluster_time.as_ref())),
                ("state hash", answer.state_hash.clone()),
                ("version", format!("{} (feature level {})", answer.version, answer.feature_level)),
            ]);
            text.push('\n');
            text.push_str(&table(&answer.members).render(false));
            Ok(View::object(&answer, &answer.cluster, text))
        })
        .await
}

async fn members(context: &Context, args: &ReadFlags) -> Done {
    context
        .watch(args.watch, || async {
            let answer = context.client.cluster().status().await?;
            let names = answer.members.iter().map(|member| member.name.clone()).collect();
            let table = table(&answer.members);
            Ok(View::list(&answer, "members", names, table))
        })
        .await
}

fn table(members: &[v1::Member]) -> Table {
    let mut table = Table::new(
        &["NODE", "ROLE", "REACHABLE", "LAST CONTACT", "APPLIED", "ADDRESS"],
        &["ID", "PEER ADDRESS", "VERSION"],
    );
    for member in members {
        table.row(vec![
            member.name.clone(),
            human::role(member.role()),
            reachable(member).to_owned(),
            human::api_span(member.last_contact.as_ref()),
            member.applied_index.to_string(),
            human::or_dash(&member.grpc_address),
            member.node_id.to_string(),
            human::or_dash(&member.peer_address),
            human::or_dash(&member.version),
        ]);
    }
    table
}

fn reachable(member: &v1::Member) -> &'static str {
    match (member.reachable, member.replaced, member.forgot) {
        (false, _, _) => "no",
        (true, true, _) => "yes, directory lost",
        (true, false, true) => "yes, entries lost",
        (true, false, false) => "yes",
    }
}

async fn health(context: &Context, args: &ReadFlags) -> Done {
    if !args.watch {
        let answer = context.client.cluster().health().await?;
        context.show(&health_view(&answer))?;
        return Ok(match answer.state() {
            v1::HealthState::NoQuorum => problem::UNAVAILABLE,
            v1::HealthState::Healthy | v1::HealthState::Degraded | v1::HealthState::Unspecified => {
                problem::OK
            }
        });
    }
    let read = || async { Ok(health_view(&context.client.cluster().health().await?)) };
    context.watch(true, read).await
}

fn health_view(answer: &v1::GetClusterHealthResponse) -> View {
    let text = pairs(&[
        ("state", human::health(answer.state())),
        ("problems", answer.problems.join("\n")),
        ("reads", human::api_span(answer.read_latency.as_ref())),
        ("writes", human::api_span(answer.write_latency.as_ref())),
        ("revision", answer.revision.to_string()),
    ]);
    View::object(answer, &human::health(answer.state()), text)
}

/// Changes of members are no commands of the state: they have no request id, and `cluster members` shows their fate.
fn uncertain(error: crate::Error) -> Problem {
    let unknown = matches!(error, crate::Error::Unknown { .. });
    let mut problem = Problem::from(error);
    if unknown {
        problem.reason = "MEMBERSHIP_UNKNOWN".to_owned();
        problem.next = vec!["pinrail cluster members      shows whether it was done".to_owned()];
    }
    problem
}

async fn add(context: &Context, args: &Add) -> Done {
    let request = v1::AddMemberRequest {
        name: args.name.clone(),
        peer_address: args.peer.clone(),
        learner: args.learner,
    };
    let answer = context.client.cluster().add_member(request).await.map_err(uncertain)?;
    let table = table(answer.member.as_slice());
    context.show(&View::object(&answer, &args.name, table.render(false)))
}

async fn remove(context: &Context, args: &Remove) -> Done {
    let flags = WriteFlags { yes: args.yes, ..Default::default() };
    context.confirm(&flags, &format!("Remove {} from the cluster?", args.name))?;
    let request = v1::RemoveMemberRequest { name: args.name.clone(), force: args.force };
    let answer = context.client.cluster().remove_member(request).await.map_err(uncertain)?;
    let text = pairs(&[("removed", args.name.clone())]);
    context.show(&View::object(&answer, &args.name, text))
}

async fn transfer_leader(context: &Context, args: &TransferLeader) -> Done {
    let request = v1::TransferLeaderRequest { to: args.to.clone() };
    let answer = context.client.cluster().transfer_leader(request).await.map_err(uncertain)?;
    let text = pairs(&[("leader", answer.leader.clone())]);
    context.show(&View::object(&answer, &answer.leader, text))
}
