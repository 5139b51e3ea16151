//! `namespace`: tenants.

use clap::{Args, Subcommand};
use pinrail_proto::{id, v1};

use super::context::{Context, Done};
use super::flags::{ReadFlags, WriteFlags};
use super::human;
use super::table::{Table, pairs};
use super::view::View;

/// Verbs of `namespace`.
#[derive(Debug, Clone, Subcommand)]
pub enum Namespace {
    /// Create a namespace
    #[command(after_help = "Example:\n  pinrail namespace create team-a")]
    Create(Create),
    /// List the namespaces
    #[command(after_help = "Example:\n  pinrail namespace list")]
    List(ReadFlags),
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
    write: WriteFlags,
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
        Namespace::List(args) => list(context, args).await,
        Namespace::Delete(args) => delete(context, args).await,
    }
}

async fn create(context: &Context, args: &Create) -> Done {
    id::check_name("namespace", &args.name)?;
    let request = v1::CreateNamespaceRequest {
        namespace: args.name.clone(),
        options: context.write(&args.write)?,
    };
    let answer = context.client.namespaces().create(request).await?;
    let text =
        pairs(&[("namespace", args.name.clone()), ("revision", answer.revision.to_string())]);
    context.show(&View::object(&answer, &args.name, text))
}

async fn list(context: &Context, args: &ReadFlags) -> Done {
    context
        .watch(args.watch, || async {
            let request = v1::ListNamespacesRequest { read: context.read() };
            let answer = context.client.namespaces().list(request).await?;
            let now = human::now_ms();
            let mut table = Table::new(&["NAMESPACE", "AGENTS", "AGE"], &["REVISION"]);
            for it in &answer.namespaces {
                table.row(vec![
                    it.namespace.clone(),
                    it.agents.to_string(),
                    human::age(it.created_at.as_ref(), now),
                    it.revision.to_string(),
                ]);
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
