//! `namespace`: tenants.

use clap::{Args, Subcommand};
use pinrail_proto::{id, v1};

use super::context::{Context, Done};
use super::file::value;
use super::flags::{ReadFlags, WriteFlags};
use super::human;
use super::problem::Problem;
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `namespace`.
#[derive(Debug, Clone, Subcommand)]
pub enum Namespace {
    /// Create a namespace, with quotas or without
    #[command(
        after_help = "Example:\n  pinrail namespace create team-a\n  pinrail namespace create team-b --open-runs 1000 --memory 10GiB"
    )]
    Create(Create),
    /// A namespace with its quotas and what its agents have
    #[command(after_help = "Example:\n  pinrail namespace show team-a")]
    Show(Show),
    /// List the namespaces
    #[command(after_help = "Example:\n  pinrail namespace list")]
    List(ReadFlags),
    /// Change quotas: those that are named; a lower one takes nothing away that is there
    #[command(
        after_help = "Example:\n  pinrail namespace update team-a --open-runs 1000 --bundles none\n  pinrail namespace update team-a --open-runs 0 --reason \"stopped for the audit\""
    )]
    Update(Update),
    /// Delete a namespace without agents; asks first
    #[command(after_help = "Example:\n  pinrail namespace delete team-a --yes")]
    Delete(Delete),
}

#[derive(Debug, Clone, Args)]
pub struct Create {
    /// Name of the namespace
    #[arg(value_name = "NAMESPACE")]
    name: String,
    #[command(flatten)]
    quotas: Quotas,
    #[command(flatten)]
    write: WriteFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the namespace
    #[arg(value_name = "NAMESPACE")]
    name: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Update {
    /// Name of the namespace
    #[arg(value_name = "NAMESPACE")]
    name: String,
    #[command(flatten)]
    quotas: Quotas,
    #[command(flatten)]
    write: WriteFlags,
}

/// What the agents of a namespace may have together.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Quotas (`none`: no quota)")]
struct Quotas {
    /// Runs that are not over
    #[arg(long, value_name = "N", value_parser = number)]
    open_runs: Option<Amount>,
    /// Agents
    #[arg(long, value_name = "N", value_parser = number)]
    agents: Option<Amount>,
    /// Bytes of memory, kept versions and all layers included
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<Amount>,
    /// Stored bundles
    #[arg(long, value_name = "N", value_parser = number)]
    bundles: Option<Amount>,
}

/// A quota, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Amount(Option<u64>);

/// `1000`, or `none`.
fn number(text: &str) -> Result<Amount, String> {
    amount(text, |text| {
        text.parse().map_err(|_| format!("{text:?} is no number; e.g. \"1000\", or \"none\""))
    })
}

/// `10GiB`, or `none`.
fn size(text: &str) -> Result<Amount, String> {
    amount(text, |text| value::size(text).map_err(|wrong| format!("{wrong}, or \"none\"")))
}

fn amount(text: &str, parse: impl Fn(&str) -> Result<u64, String>) -> Result<Amount, String> {
    if text == "none" { Ok(Amount(None)) } else { parse(text).map(|it| Amount(Some(it))) }
}

impl Quotas {
    fn set(&self) -> v1::NamespaceAmounts {
        let set = |amount: Option<Amount>| amount.and_then(|amount| amount.0);
        v1::NamespaceAmounts {
            open_runs: set(self.open_runs),
            agents: set(self.agents),
            memory_bytes: set(self.memory),
            bundles: set(self.bundles),
        }
    }

    fn unlimited(&self) -> Vec<i32> {
        let all = [
            (self.open_runs, v1::Quota::OpenRuns),
            (self.agents, v1::Quota::Agents),
            (self.memory, v1::Quota::MemoryBytes),
            (self.bundles, v1::Quota::Bundles),
        ];
        let none = all.into_iter().filter(|(amount, _)| *amount == Some(Amount(None)));
        none.map(|(_, quota)| quota.into()).collect()
    }
}

#[derive(Debug, Clone, Args)]
pub struct Delete {
    /// Name of the namespace
    #[arg(value_name = "NAMESPACE")]
    name: String,
    #[command(flatten)]
    write: WriteFlags,
}

pub(super) async fn run(context: &Context, verb: &Namespace) -> Done {
    match verb {
        Namespace::Create(args) => create(context, args).await,
        Namespace::Show(args) => show(context, args).await,
        Namespace::List(args) => list(context, args).await,
        Namespace::Update(args) => update(context, args).await,
        Namespace::Delete(args) => delete(context, args).await,
    }
}

async fn create(context: &Context, args: &Create) -> Done {
    id::check_name("namespace", &args.name)?;
    let request = v1::CreateNamespaceRequest {
        namespace: args.name.clone(),
        quotas: Some(args.quotas.set()),
        options: context.write(&args.write)?,
    };
    let answer = context.client.namespaces().create(request).await?;
    let text =
        pairs(&[("namespace", args.name.clone()), ("revision", answer.revision.to_string())]);
    context.show(&View::object(&answer, &args.name, text))
}

async fn show(context: &Context, args: &Show) -> Done {
    id::check_name("namespace", &args.name)?;
    context
        .watch(args.read.watch, || async {
            let request =
                v1::GetNamespaceRequest { namespace: args.name.clone(), read: context.read() };
            let answer = context.client.namespaces().get(request).await?;
            let text = told(answer.namespace.as_ref());
            Ok(View::object(&answer, &args.name, text))
        })
        .await
}

async fn update(context: &Context, args: &Update) -> Done {
    id::check_name("namespace", &args.name)?;
    let (quotas, unlimited) = (args.quotas.set(), args.quotas.unlimited());
    if quotas == v1::NamespaceAmounts::default() && unlimited.is_empty() {
        return Err(Problem::usage("name a quota: --open-runs, --agents, --memory or --bundles"));
    }
    let request = v1::UpdateNamespaceRequest {
        namespace: args.name.clone(),
        quotas: Some(quotas),
        unlimited,
        options: context.write(&args.write)?,
    };
    let answer = context.client.namespaces().update(request).await?;
    let text = told(answer.namespace.as_ref());
    context.show(&View::object(&answer, &args.name, text))
}

/// A namespace, line by line.
fn told(namespace: Option<&v1::Namespace>) -> String {
    let it = namespace.cloned().unwrap_or_default();
    let mut lines = vec![("namespace", it.namespace.clone())];
    lines.extend(uses(&it).into_iter().map(|(noun, used)| (noun, used.unwrap_or_default())));
    lines.push(("created", human::at(it.created_at.as_ref())));
    lines.push(("revision", it.revision.to_string()));
    pairs(&lines)
}

/// What a namespace has of each quota, where that is known: `57 of 100`, `57`.
fn uses(it: &v1::Namespace) -> [(&'static str, Option<String>); 4] {
    let (used, quotas) = (it.used.unwrap_or_default(), it.quotas.unwrap_or_default());
    let number = |amount: u64| amount.to_string();
    let of = |used: Option<u64>, limit: Option<u64>, show: &dyn Fn(u64) -> String| {
        let used = show(used?);
        Some(limit.map_or_else(|| used.clone(), |limit| format!("{used} of {}", show(limit))))
    };
    [
        ("agents", of(used.agents, quotas.agents, &number)),
        ("open runs", of(used.open_runs, quotas.open_runs, &number)),
        ("memory", of(used.memory_bytes, quotas.memory_bytes, &value::show_size)),
        ("bundles", of(used.bundles, quotas.bundles, &number)),
    ]
}

async fn list(context: &Context, args: &ReadFlags) -> Done {
    context
        .watch(args.watch, || async {
            let request = v1::ListNamespacesRequest { read: context.read() };
            let answer = context.client.namespaces().list(request).await?;
            let now = human::now_ms();
            let columns = ["NAMESPACE", "AGENTS", "OPEN RUNS", "MEMORY", "BUNDLES", "AGE"];
            let mut table = Table::new(&columns, &["REVISION"]);
            for it in &answer.namespaces {
                let mut row = vec![it.namespace.clone()];
                row.extend(uses(it).map(|(_, used)| human::or_dash(&used.unwrap_or_default())));
                row.push(human::age(it.created_at.as_ref(), now));
                row.push(it.revision.to_string());
                table.row(row);
            }
            let names = answer.namespaces.iter().map(|it| it.namespace.clone()).collect();
            Ok(View::list(&answer, "namespaces", names, table))
        })
        .await
}

async fn delete(context: &Context, args: &Delete) -> Done {
    id::check_name("namespace", &args.name)?;
    context.confirm(&args.write, &format!("Delete namespace {}?", args.name))?;
    let request = v1::DeleteNamespaceRequest {
        namespace: args.name.clone(),
        options: context.write(&args.write)?,
    };
    let answer = context.client.namespaces().delete(request).await?;
    let text = pairs(&[("deleted", args.name.clone()), ("revision", answer.revision.to_string())]);
    context.show(&View::object(&answer, &args.name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_number_a_size_or_none() {
        assert_eq!(number("1000"), Ok(Amount(Some(1_000))));
        assert_eq!(size("1GiB"), Ok(Amount(Some(1 << 30))));
        assert_eq!((number("none"), size("none")), (Ok(Amount(None)), Ok(Amount(None))));
        for wrong in ["", "-1", "many", "unlimited", "1GiB"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
        assert!(size("1XB").is_err());
    }

    #[test]
    fn only_quotas_that_are_named_change() {
        let quotas = Quotas {
            open_runs: Some(Amount(Some(5))),
            bundles: Some(Amount(None)),
            ..Quotas::default()
        };
        let set = v1::NamespaceAmounts { open_runs: Some(5), ..Default::default() };
        assert_eq!(quotas.set(), set);
        assert_eq!(quotas.unlimited(), [i32::from(v1::Quota::Bundles)]);
    }

    #[test]
    fn what_is_used_is_shown_beside_its_quota() {
        let it = v1::Namespace {
            quotas: Some(v1::NamespaceAmounts {
                memory_bytes: Some(10 << 30),
                ..Default::default()
            }),
            used: Some(v1::NamespaceAmounts {
                agents: Some(2),
                memory_bytes: Some(1 << 29),
                ..Default::default()
            }),
            ..v1::Namespace::default()
        };
        let shown = uses(&it).map(|(_, used)| used.unwrap_or_default());
        assert_eq!(shown, ["2", "", "512MiB of 10GiB", ""]);
    }
}
