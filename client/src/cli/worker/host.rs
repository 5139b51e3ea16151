//! `worker exec` and `worker http`: this process as the worker of one or several bundles.

use std::path::PathBuf;

use clap::Args;
use pinrail_proto::id;

use super::super::context::{Context, Done};
use super::super::problem::{self, Problem};
use crate::config;
use crate::host::{self, Host, Program, Source};
use crate::worker::shutdown_signal;

/// What both have.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Steps at once of each bundle, at most
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    slots: u32,
    /// A step that it serves; repeat for more [default: what the program says, or all]
    #[arg(long = "step", value_name = "NAME")]
    steps: Vec<String>,
    /// Every effect of the program goes through tools and checkpoints
    #[arg(long)]
    shadow_safe: bool,
    /// What the program was built from; of several bundles BUNDLE=ID, repeated; also PINRAIL_CODE
    #[arg(long, value_name = "[BUNDLE=]ID")]
    code: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Exec {
    #[command(flatten)]
    common: Common,
    /// A bundle that the program is, and the folder of that one; repeat to serve several; also PINRAIL_BUNDLE
    #[arg(long = "bundle", value_name = "BUNDLE[=DIR]")]
    bundles: Vec<String>,
    /// Where the program runs, of bundles without a folder of their own [default: here]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Start the program for each step: the step on stdin, the last line of stdout is the outcome
    #[arg(long)]
    per_step: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct Http {
    #[command(flatten)]
    common: Common,
    /// A bundle that the server is, and the URL of that one; repeat to serve several; also PINRAIL_BUNDLE
    #[arg(long = "bundle", value_name = "BUNDLE[=URL]")]
    bundles: Vec<String>,
    /// Where steps are POSTed to, of bundles without a URL of their own
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(super) async fn exec(context: &Context, args: &Exec) -> Done {
    let source = |dir: Option<&str>| {
        let dir = dir.map(PathBuf::from).or_else(|| args.dir.clone());
        if let Some(missing) = dir.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(Problem::usage(format!("{} is no folder", missing.display())));
        }
        let program = Program { command: args.command.clone(), dir };
        Ok(if args.per_step { Source::PerStep(program) } else { Source::Kept(program) })
    };
    serve(context, &args.common, &args.bundles, source).await
}

pub(super) async fn http(context: &Context, args: &Http) -> Done {
    let source = |url: Option<&str>| {
        let url = url.or(args.url.as_deref());
        let url = url.ok_or_else(|| Problem::usage("--url says where the steps are POSTed to"))?;
        Ok(Source::Http(url.to_owned()))
    };
    serve(context, &args.common, &args.bundles, source).await
}

async fn serve(
    context: &Context,
    common: &Common,
    bundles: &[String],
    source: impl Fn(Option<&str>) -> Result<Source, Problem>,
) -> Done {
    let hosts = hosts(context, common, bundles, source)?;
    for host in &hosts {
        eprintln!("serving {} {}; Ctrl-C ends it in order", host.agent, host.bundle);
    }
    host::serve(hosts, context.client.clone(), shutdown_signal()).await?;
    Ok(problem::OK)
}

fn hosts(
    context: &Context,
    common: &Common,
    bundles: &[String],
    source: impl Fn(Option<&str>) -> Result<Source, Problem>,
) -> Result<Vec<Host>, Problem> {
    let agent = context.agent(&common.agent)?;
    let bundles = match bundles {
        [] => vec![config::worker_bundle().unwrap_or_default()],
        bundles => bundles.to_vec(),
    };
    let named: Vec<(&str, Option<&str>)> = bundles.iter().map(|it| split(it)).collect();
    let several = named.len() > 1;
    let mut hosts: Vec<Host> = Vec::new();
    for (bundle, place) in &named {
        id::check_name("bundle", bundle)?;
        if hosts.iter().any(|host| host.bundle == *bundle) {
            return Err(Problem::usage(format!("--bundle {bundle} is there twice")));
        }
        // Two workers cannot share an id.
        let worker_id = config::worker_id().filter(|_| several);
        hosts.push(Host {
            agent: agent.clone(),
            bundle: (*bundle).to_owned(),
            source: source(*place)?,
            slots: common.slots,
            steps: common.steps.clone(),
            shadow_safe: common.shadow_safe,
            code: None,
            worker_id: worker_id.map(|id| format!("{id}-{bundle}")),
        });
    }
    for code in &common.code {
        assign(&mut hosts, code)?;
    }
    Ok(hosts)
}

fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(bundle, place)| (bundle, Some(place)))
}

/// Gives a code to its bundle. A code has no bundle's name before `=` by accident: names are few.
fn assign(hosts: &mut [Host], code: &str) -> Result<(), Problem> {
    if let [host] = hosts {
        let own = format!("{}=", host.bundle);
        host.code = Some(code.strip_prefix(&own).unwrap_or(code).to_owned());
        return Ok(());
    }
    let (bundle, id) = code.split_once('=').unwrap_or_default();
    let Some(host) = hosts.iter_mut().find(|host| host.bundle == bundle) else {
        let message = format!("--code {code}: with several bundles it is BUNDLE=ID");
        return Err(Problem::usage(message));
    };
    host.code = Some(id.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(bundle: &str) -> Host {
        let source = Source::Http("http://localhost/".into());
        let (agent, bundle) = ("a".into(), bundle.into());
        let (steps, code, worker_id) = (Vec::new(), None, None);
        Host { agent, bundle, source, slots: 1, steps, shadow_safe: false, code, worker_id }
    }

    #[test]
    fn a_bundle_may_name_its_place() {
        assert_eq!(split("v1"), ("v1", None));
        assert_eq!(split("v1=http://localhost/?a=b"), ("v1", Some("http://localhost/?a=b")));
    }

    #[test]
    fn a_code_goes_to_its_bundle() {
        let mut one = [host("v1")];
        for (code, taken) in [("abc", "abc"), ("v1=abc", "abc"), ("other=abc", "other=abc")] {
            assign(&mut one, code).expect("it is taken");
            assert_eq!(one[0].code.as_deref(), Some(taken));
        }
        let mut two = [host("v1"), host("v2")];
        assign(&mut two, "v2=def").expect("it is taken");
        assert_eq!((two[0].code.as_deref(), two[1].code.as_deref()), (None, Some("def")));
        for wrong in ["def", "v3=def", "=def"] {
            assert_eq!(assign(&mut two, wrong).expect_err(wrong).exit, 2);
        }
    }
}
