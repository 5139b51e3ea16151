//! The command line: every verb that talks to a cluster. One file per noun, one function per verb.
//!
//! It decides nothing: whether something is safe is the server's word. It must not know how the cluster works inside,
//! nor open a data directory; those verbs live in the binary, which mounts [`Command`] beside its own.
//! Data goes to stdout, talk to stderr.

use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Subcommand;

mod agent;
mod audit;
mod bench;
mod bundle;
mod cluster;
mod completion;
mod config;
mod context;
mod cost;
mod doctor;
mod drain;
mod drill;
mod environment;
mod eval;
mod event;
mod explain;
pub mod file;
mod flags;
mod hook;
mod human;
mod init;
mod input;
mod memory;
mod namespace;
mod offline;
mod pin;
mod problem;
mod quarantine;
mod release;
mod route;
mod run;
mod session;
mod settings;
mod shadow;
mod signal;
mod snapshot;
mod status;
mod table;
mod tool;
mod view;
mod worker;

pub use cluster::{Cluster, Recover};
use context::{Context, Done};
#[cfg(feature = "testing")]
pub use eval::reads_eval_results;
pub use offline::{Offline, Refusal};
use pinrail_proto::json;
use problem::Problem;
pub use settings::{Globals, Output};

/// Every verb that talks to a cluster.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// What is live, how the runs are, and what to do next
    Status(status::Status),
    /// Write the files of a new agent
    Init(init::Init),
    /// Tenants
    #[command(subcommand, alias = "namespaces")]
    Namespace(namespace::Namespace),
    /// Agents and their policy
    #[command(subcommand, alias = "agents")]
    Agent(agent::Agent),
    /// Immutable releases of an agent
    #[command(subcommand, alias = "bundles")]
    Bundle(bundle::Bundle),
    /// The compute of a bundle: what is wanted, and where it is
    #[command(subcommand, alias = "environments")]
    Environment(environment::Environment),
    /// Executions of an agent
    #[command(subcommand, alias = "runs")]
    Run(run::Run),
    /// Runs that belong together, and the bundle that they start on
    #[command(subcommand, alias = "sessions")]
    Session(session::Session),
    /// Which bundle a run belongs to
    #[command(subcommand, alias = "pins")]
    Pin(pin::Pin),
    /// How far the runs of a bundle without traffic are
    #[command(subcommand, alias = "drains")]
    Drain(drain::Drain),
    /// Workers that are connected
    #[command(subcommand, alias = "workers")]
    Worker(worker::Worker),
    /// The procedure from a bundle's first check to live
    #[command(subcommand, alias = "releases")]
    Release(release::Release),
    /// The bundle before the last switch, kept to return to
    #[command(subcommand)]
    Quarantine(quarantine::Quarantine),
    /// How a candidate does beside the bundle that it replaces
    #[command(subcommand, alias = "signals")]
    Signal(signal::Signal),
    /// Tools and models that are not what a bundle says
    #[command(subcommand, alias = "tools")]
    Tool(tool::Tool),
    /// Live runs and their mirrors, side by side
    #[command(subcommand, alias = "shadows")]
    Shadow(shadow::Shadow),
    /// Make a bundle live, in one command
    Switch(route::Switch),
    /// Return to the bundle that was live before, in one command; never asks
    Rollback(route::Rollback),
    /// Practise the rollback, and time each part of it
    #[command(alias = "drills")]
    Drill(drill::Drill),
    /// Memory under the bundle id
    #[command(subcommand, alias = "memories")]
    Memory(memory::Memory),
    /// Sets of examples, and how bundles did on them
    #[command(subcommand, alias = "evals")]
    Eval(eval::Eval),
    /// What runs used and cost
    #[command(
        alias = "costs",
        after_help = "Examples:\n  pinrail cost support --by bundle\n  pinrail cost support --by model --bundle v42 -o json\n  pinrail cost --by kind"
    )]
    Cost(cost::Cost),
    /// What happened, in one order
    #[command(subcommand, alias = "events")]
    Event(event::Event),
    /// Where events of an agent are sent to
    #[command(subcommand, alias = "hooks")]
    Hook(hook::Hook),
    /// Who did what, and what it changed
    #[command(subcommand, alias = "audits")]
    Audit(audit::Audit),
    /// The cluster itself
    #[command(subcommand, alias = "clusters")]
    Cluster(Cluster),
    /// What an engineer on call looks at first, with what to do next
    Doctor(doctor::Doctor),
    /// Load on this cluster: operations in a second, latencies, and what they cost
    Bench(bench::Bench),
    /// Settings of this command line
    #[command(subcommand, alias = "configs")]
    Config(config::Config),
    /// What a reason means and what to do
    Explain(explain::Explain),
    /// A completion script for a shell
    Completion(completion::Completion),
}

static ROOT: OnceLock<fn() -> clap::Command> = OnceLock::new();

/// Tells the completion verb the whole command of the binary. The first call counts.
pub fn set_root(root: fn() -> clap::Command) {
    // A second call would only repeat what the binary said first.
    let _ = ROOT.set(root);
}

/// Runs a verb; everything that went wrong is on stderr already.
pub async fn run(command: Command, globals: Globals) -> ExitCode {
    let output = globals.output.unwrap_or_default();
    match run_verb(command, &globals).await {
        Ok(code) => ExitCode::from(code),
        Err((problem, chosen)) => {
            problem.print(chosen.unwrap_or(output));
            ExitCode::from(problem.exit)
        }
    }
}

async fn run_verb(command: Command, globals: &Globals) -> Result<u8, (Problem, Option<Output>)> {
    let settings = settings::Settings::load(globals).map_err(|problem| (problem, None))?;
    let output = settings.output.value;
    let failed = |problem| (problem, Some(output));
    let mut context = Context::new(settings, globals).map_err(failed)?;
    context.settle().await.map_err(failed)?;
    if finishes_first(&command) {
        return verb(&context, command).await.map_err(failed);
    }
    tokio::select! {
        // The verb first: while it asks a question, nothing catches Ctrl-C away from the terminal.
        biased;
        done = verb(&context, command) => done.map_err(|mut problem| {
            problem.advise(&context.subject(), &context.request_id());
            failed(problem)
        }),
        _ = tokio::signal::ctrl_c() => Ok(context.interrupted()),
    }
}

/// Whether the verb hears the signals itself, because it has something to finish or to remove.
fn finishes_first(command: &Command) -> bool {
    matches!(command, Command::Bench(_))
        || matches!(command, Command::Worker(worker) if worker.finishes_first())
}

async fn verb(context: &Context, command: Command) -> Done {
    match command {
        Command::Status(args) => status::status(context, &args).await,
        Command::Init(args) => init::init(&args),
        Command::Namespace(args) => namespace::run(context, &args).await,
        Command::Agent(args) => agent::run(context, &args).await,
        Command::Bundle(args) => bundle::run(context, &args).await,
        Command::Environment(args) => environment::run(context, &args).await,
        Command::Run(args) => run::run(context, &args).await,
        Command::Session(args) => session::run(context, &args).await,
        Command::Pin(args) => pin::run(context, &args).await,
        Command::Drain(args) => drain::run(context, &args).await,
        Command::Worker(args) => worker::run(context, &args).await,
        Command::Release(args) => release::run(context, &args).await,
        Command::Quarantine(args) => quarantine::run(context, &args).await,
        Command::Signal(args) => signal::run(context, &args).await,
        Command::Tool(args) => tool::run(context, &args).await,
        Command::Shadow(args) => shadow::run(context, &args).await,
        Command::Drill(args) => drill::run(context, &args).await,
        Command::Switch(args) => route::switch(context, &args).await,
        Command::Rollback(args) => route::rollback(context, &args).await,
        Command::Memory(args) => memory::run(context, &args).await,
        Command::Eval(args) => eval::run(context, &args).await,
        Command::Cost(args) => cost::cost(context, &args).await,
        Command::Event(args) => event::run(context, &args).await,
        Command::Hook(args) => hook::run(context, &args).await,
        Command::Audit(args) => audit::run(context, &args).await,
        Command::Cluster(args) => cluster::run(context, &args).await,
        Command::Doctor(args) => doctor::run(context, &args).await,
        Command::Bench(args) => bench::run(context, &args).await,
        Command::Config(args) => config::run(context, &args),
        Command::Explain(args) => explain::explain(context, &args),
        Command::Completion(args) => completion::completion(&args),
    }
}

/// The whole command: the binary's, or these verbs alone.
fn root() -> clap::Command {
    ROOT.get().map_or_else(grammar, |root| root())
}

/// These verbs alone.
fn grammar() -> clap::Command {
    let command = clap::Command::new("pinrail").subcommand_required(true);
    Command::augment_subcommands(<Globals as clap::Args>::augment_args(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        let mut any = false;
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            any = true;
            leaves(sub, &format!("{path} {}", sub.get_name()), found);
        }
        if !any {
            found.push((path.to_owned(), command.clone()));
        }
    }

    #[test]
    fn the_grammar_is_consistent() {
        grammar().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example_of_itself() {
        let mut found = Vec::new();
        leaves(&grammar(), "pinrail", &mut found);
        assert!(found.len() > 45, "{}", found.len());
        for (path, command) in found {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&path), "{path} has no example: {help:?}");
        }
    }

    #[test]
    fn every_example_parses() {
        let mut found = Vec::new();
        leaves(&grammar(), "pinrail", &mut found);
        for (path, command) in found {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.contains("pinrail ")) {
                let words = shell_words(line);
                let parsed = grammar().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{path}: {line}: {}", parsed.expect_err("not ok"));
            }
        }
    }

    /// Splits at blanks outside single and double quotes.
    fn shell_words(line: &str) -> Vec<String> {
        let (mut words, mut quote, mut open) = (vec![String::new()], None, false);
        for c in line.trim().chars() {
            match (c, quote) {
                ('\'' | '"', None) => (quote, open) = (Some(c), true),
                (_, Some(end)) if c == end => quote = None,
                (' ', None) => {
                    if open || words.last().is_some_and(|word| !word.is_empty()) {
                        words.push(String::new());
                        open = false;
                    }
                }
                _ => words.last_mut().expect("never empty").push(c),
            }
        }
        words
    }

    #[test]
    fn plurals_are_accepted() {
        for noun in ["namespaces", "agents", "clusters"] {
            let verb = if noun == "clusters" { "status" } else { "list" };
            assert!(grammar().try_get_matches_from(["pinrail", noun, verb]).is_ok(), "{noun}");
        }
        for noun in ["bundles", "runs", "sessions", "pins", "workers", "environments", "evals"] {
            let words = ["pinrail", noun, "list", "support"];
            assert!(grammar().try_get_matches_from(words).is_ok(), "{noun}");
        }
    }

    /// Runs a command line against this endpoint; the exit code.
    async fn exit(endpoint: &str, words: &[&str]) -> u8 {
        let matches = grammar().try_get_matches_from(words).expect("it parses");
        let command = <Command as clap::FromArgMatches>::from_arg_matches(&matches);
        let globals = <Globals as clap::FromArgMatches>::from_arg_matches(&matches);
        let mut globals = globals.expect("it parses");
        globals.endpoint = Some(endpoint.to_owned());
        globals.timeout = Some("300ms".to_owned());
        match run_verb(command.expect("it parses"), &globals).await {
            Ok(code) => code,
            Err((problem, _)) => problem.exit,
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable_and_bad_input_is_usage() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let cases: [(&[&str], u8); 8] = [
            (&["pinrail", "agent", "list"], 6),
            (&["pinrail", "agent", "list", "--local"], 6),
            (&["pinrail", "switch", "support", "v1"], 6),
            (&["pinrail", "switch", "-", "v1"], 2),
            (&["pinrail", "run", "start", "support", "--input", "{broken"], 2),
            (&["pinrail", "agent", "create", "support", "-f", "nowhere.toml"], 2),
            (&["pinrail", "memory", "put", "support", "a//b", "1"], 2),
            (&["pinrail", "explain", "NO_QUORUM"], 0),
        ];
        for (words, code) in cases {
            assert_eq!(exit(&address, words).await, code, "{words:?}");
        }
        assert_eq!(exit("nowhere", &["pinrail", "agent", "list"]).await, 2);
    }

    #[test]
    fn everywhere_flags_stand_anywhere() {
        for words in [
            ["pinrail", "-o", "json", "run", "list", "support", "--local"],
            ["pinrail", "run", "list", "support", "--local", "-o", "json"],
        ] {
            assert!(grammar().try_get_matches_from(words).is_ok(), "{words:?}");
        }
    }
}
