//! `pinrail cluster recover`: one member goes on alone after the majority was lost for good.

use std::process::ExitCode;

use pinrail_client::cli::{self, Offline, Refusal};
use pinrail_node::config::ServerConfig;
use pinrail_node::env::Env;
use pinrail_node::raft::{RecoverError, Survivor};
use pinrail_node::server::replica_config;
use serde_json::json;

/// Shows what would be lost, asks, and writes.
pub(crate) fn run(args: &cli::Recover, globals: &cli::Globals) -> ExitCode {
    let offline = match Offline::new(globals) {
        Ok(offline) => offline,
        Err(exit) => return exit,
    };
    let config = match ServerConfig::load(&args.file) {
        Ok(config) => config,
        Err(error) => {
            return offline.refuse("INVALID_CONFIG", Refusal::Usage, &error.to_string(), &[]);
        }
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            return offline.refuse("IO", Refusal::Failed, &format!("{error:#}"), &[]);
        }
    };
    let env = Env::real();
    let replica = replica_config(&config, config.listen.grpc);
    let opened = Survivor::open(&replica, &env);
    let survivor = match opened {
        Ok(survivor) => survivor,
        Err(error) => return refuse(&offline, &error),
    };
    if let Err(error) = runtime.block_on(survivor.judge(&env)) {
        return refuse(&offline, &error);
    }
    carry_out(args, &offline, &env, survivor)
}

fn carry_out(args: &cli::Recover, offline: &Offline, env: &Env, survivor: Survivor) -> ExitCode {
    let (cluster, node) = (survivor.identity().cluster.clone(), survivor.identity().node.clone());
    let (index, term) = survivor.last();
    let given_up: Vec<String> = survivor.given_up().into_iter().map(|(name, _, _)| name).collect();
    let mut rows = vec![
        ("cluster", cluster.clone()),
        ("goes on", format!("{node}, as the only voter, under a new number")),
        ("given up", gone(&survivor)),
        ("last entry", format!("{index} of term {term}, revision {}", survivor.revision)),
        ("time", time(survivor.now_ms)),
        ("not applied", not_applied(survivor.unapplied)),
        (
            "may be lost",
            "all that the others acknowledged after that entry: starts, results, switches, memory"
                .to_owned(),
        ),
        (
            "will be void",
            "every lease: workers' open steps are leased again, once their leases are over"
                .to_owned(),
        ),
    ];
    let mut said = json!({
        "cluster": cluster, "node": node, "given_up": given_up, "last_index": index, "last_term": term,
        "revision": survivor.revision, "cluster_time": time(survivor.now_ms), "unapplied_entries": survivor.unapplied,
        "recovered": false,
    });
    if args.dry_run {
        eprintln!("dry run: nothing is written");
        return offline.show(said, &node, &rows);
    }
    for (key, value) in &rows {
        eprintln!("{key:<14}{value}");
    }
    if !args.yes {
        let question = "The others must never be started with their data again. Type the cluster's name to give them up:";
        if let Err(exit) = offline.have_typed(question, &cluster) {
            return exit;
        }
    }
    match survivor.carry_out(env, &offline.actor, &args.reason) {
        Ok(done) => {
            said["recovered"] = json!(true);
            said["node_id"] = json!(done.node_id);
            rows = vec![
                ("recovered", format!("{node}, number {}, term {}", done.node_id, done.term)),
                ("next", format!("pinrail server -f {}", args.file.display())),
                ("then", "the others: empty data directories, `join` in server.toml, pinrail cluster add".to_owned()),
            ];
            offline.show(said, &node, &rows)
        }
        Err(error) => {
            let message = format!("the recovery could not be written: {error}");
            let next = ["the same command again, or the server's start, goes on where it stopped"];
            offline.refuse("IO", Refusal::Failed, &message, &next)
        }
    }
}

fn gone(survivor: &Survivor) -> String {
    let line = |(name, address, voter): &(String, String, bool)| {
        format!("{name} at {address}{}", if *voter { "" } else { " (learner)" })
    };
    survivor.given_up().iter().map(line).collect::<Vec<_>>().join("\n              ")
}

fn not_applied(entries: u64) -> String {
    match entries {
        0 => "nothing: all that it has was acknowledged".to_owned(),
        entries => {
            format!("{entries} entries, which are kept, be it that nobody was told that they are")
        }
    }
}

fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| ms.to_string(), |at| format!("{at:.3}"))
}

fn refuse(offline: &Offline, error: &RecoverError) -> ExitCode {
    let (reason, refusal, next): (_, _, &[&str]) = match error {
        RecoverError::OnlyVoter { .. } | RecoverError::MajorityAlive { .. } => {
            ("NOTHING_LOST", Refusal::Unsafe, &["pinrail server -f server.toml"])
        }
        RecoverError::Behind { .. } => {
            ("NOT_THE_FURTHEST", Refusal::Unsafe, &["pinrail cluster recover, on that member"])
        }
        RecoverError::Directory(pinrail_node::storage::DataDirError::InUse(_)) => {
            ("DIRECTORY_IN_USE", Refusal::Unsafe, &["stop this member's server first"])
        }
        RecoverError::NoMember(_) | RecoverError::NeverFormed => (
            "NOTHING_TO_RECOVER",
            Refusal::Unsafe,
            &["pinrail cluster snapshot restore, from a backup"],
        ),
        RecoverError::Directory(_) | RecoverError::Storage { .. } => {
            ("DATA_DAMAGED", Refusal::Failed, &["pinrail cluster recover, on another member"])
        }
    };
    offline.refuse(reason, refusal, &error.to_string(), next)
}
