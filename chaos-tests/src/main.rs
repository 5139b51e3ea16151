//! `chaos`: faults against real Pinrail processes, and the demonstration of the main job.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pinrail_chaos_tests::bench;
use pinrail_chaos_tests::cluster::Ground;
use pinrail_chaos_tests::config::Binaries;
use pinrail_chaos_tests::demo::{DemoOptions, demo};
use pinrail_chaos_tests::demo_release::demo_release;
use pinrail_chaos_tests::history::FaultKind;
use pinrail_chaos_tests::scenario::outages::Group;
use pinrail_chaos_tests::scenario::switch_cost::Size;
use pinrail_chaos_tests::scenario::{
    Setting, degraded, flood, kill_all, late_workers, many_runs, membership, memory_cost, moves,
    outages, overload, power_loss, release_kills, rollback_cost, shadow_cost, snapshot, storm,
    switch_cost, upgrade, watchers,
};
#[cfg(feature = "simulation")]
use pinrail_chaos_tests::simulation::command;
use tokio::signal::unix::{SignalKind, signal};

/// As the programs that it measures beside ours have one for such loads: what a load costs is no part of what it measures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Faults against real Pinrail processes, judged by an independent model.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What every random choice is drawn from.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Folder for a report of each scenario (Markdown, JSON, a picture of availability over time as SVG), and for logs,
    /// histories and evidence of what failed; default: no report, and the system's temporary folder.
    #[arg(long, global = true)]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Storms drawn from seeds: clients, route changes, and faults of every kind.
    Run {
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Length of one storm.
        #[arg(long, default_value = "25s", value_parser = humantime::parse_duration)]
        storm: Duration,
        /// Members in network namespaces and on file systems of their own, so that cuts, disks, processors and clocks are among
        /// the faults. Needs root.
        #[arg(long)]
        namespaces: bool,
        /// Only this kind of fault: kill_leader, stop_leader, pause_leader, kill_follower, pause_follower, kill_all,
        /// kill_worker, pause_worker; as root partition_leader, partition_leader_in, partition_leader_out,
        /// partition_follower, partition_bridge, lose_power, fail_sync, slow_sync, fill_disk, read_only_disk,
        /// starve_leader, skew_clock, slow_network, lossy_network, wild_network.
        #[arg(long, value_parser = fault_kind)]
        only: Option<FaultKind>,
    },
    /// SIGKILL of all members at once under load, restart, compare.
    KillAll {
        #[arg(long, default_value_t = 20)]
        cycles: u32,
    },
    /// SIGKILL of the leader under load: how long clients wait.
    Failover {
        #[arg(long, default_value_t = 60)]
        trials: u32,
    },
    /// Members that are stopped in order, killed and paused under load: how long clients wait.
    Ends {
        /// Of each kind.
        #[arg(long, default_value_t = 10)]
        trials: u32,
        /// Only this kind: stop_leader, stop_follower, kill_follower, pause_leader.
        #[arg(long, value_parser = fault_kind)]
        only: Option<FaultKind>,
    },
    /// Loss of power of all members at once under load, each on a file system of its own: nothing acknowledged is lost.
    /// Needs root.
    PowerLoss {
        #[arg(long, default_value_t = 30)]
        cycles: u32,
    },
    /// Cuts between members, each in a network namespace of its own, under load: how long clients wait. Needs root.
    Partitions {
        /// Of each kind.
        #[arg(long, default_value_t = 20)]
        trials: u32,
        /// Only this kind: partition_leader, partition_leader_in, partition_leader_out, partition_follower,
        /// partition_bridge.
        #[arg(long, value_parser = fault_kind)]
        only: Option<FaultKind>,
    },
    /// Disks that fail, are slow, full or read-only, each member on a file system of its own, under load: how long clients wait.
    /// Needs root.
    Disks {
        /// Of each kind.
        #[arg(long, default_value_t = 5)]
        trials: u32,
        /// Only this kind: fail_sync, slow_sync, fill_disk, read_only_disk.
        #[arg(long, value_parser = fault_kind)]
        only: Option<FaultKind>,
    },
    /// Links between members that are slow, lose, double, reorder and damage, under load: how long clients wait. Needs root.
    Weather {
        /// Of each kind.
        #[arg(long, default_value_t = 5)]
        trials: u32,
        /// Only this kind: slow_network, lossy_network, wild_network.
        #[arg(long, value_parser = fault_kind)]
        only: Option<FaultKind>,
    },
    /// A leader with a fifth of a processor, and one that begins anew with a clock a day ahead: how long clients wait. Needs root.
    Strain {
        /// Of each kind.
        #[arg(long, default_value_t = 5)]
        trials: u32,
        /// Only this kind: starve_leader, skew_clock.
        #[arg(long, value_parser = fault_kind)]
        only: Option<FaultKind>,
    },
    /// A switch with many open pins against one with none; then their expiry.
    SwitchCost {
        #[arg(long, default_value_t = 10_000)]
        pins: usize,
        #[arg(long, default_value_t = 200)]
        switches: usize,
    },
    /// One agent's queue wait beside another with many steps that wait.
    Flood {
        #[arg(long, default_value_t = 100_000)]
        steps: usize,
        #[arg(long, default_value_t = 3)]
        pairs: usize,
    },
    /// Pages of filtered lists among many finished runs, and their removal.
    ManyRuns {
        #[arg(long, default_value_t = 1_000_000)]
        runs: usize,
        /// How long they are kept: longer than they take to be made and listed.
        #[arg(long, default_value = "6m", value_parser = humantime::parse_duration)]
        retention: Duration,
    },
    /// A read after many releases, and a switch of an agent with many keys.
    MemoryCost {
        #[arg(long, default_value_t = 1_000_000)]
        keys: usize,
        #[arg(long, default_value_t = 100)]
        releases: usize,
    },
    /// A release through every stage, whose leader is killed at each transition.
    ReleaseKills,
    /// A rollback with many open runs on the bundle that is left, under each in-flight policy.
    RollbackCost {
        #[arg(long, default_value_t = 10_000)]
        runs: usize,
    },
    /// Live runs beside a candidate in shadow that hangs, fails or writes memory.
    ShadowCost {
        #[arg(long, default_value_t = 5)]
        pairs: usize,
    },
    /// A follower that was down past the log's tail.
    Snapshot,
    /// Three times the load that the cluster sustains, for half a minute.
    Overload,
    /// Members are stopped and started again as another build, one by one, under load.
    Upgrade {
        /// The server of the other build, which is upgraded from.
        #[arg(long)]
        from: PathBuf,
    },
    /// Members are taken out of the cluster, and empty ones put in their place, under load.
    Membership {
        #[arg(long, default_value_t = 6)]
        changes: usize,
    },
    /// Very many watchers, slow ones and ones that never read, while the leader is killed again and again.
    Watchers {
        #[arg(long, default_value_t = 1_000)]
        watchers: usize,
        #[arg(long, default_value_t = 3)]
        kills: usize,
    },
    /// Workers that are killed, and workers that stand still for longer than their leases.
    LateWorkers {
        #[arg(long, default_value_t = 6)]
        trials: u32,
    },
    /// Switches and rollbacks under full load, with thousands of open pins.
    Moves {
        #[arg(long, default_value_t = 10_000)]
        pins: usize,
        #[arg(long, default_value_t = 100)]
        moves: usize,
    },
    /// Every verb of the command line with one and with two members stopped.
    Degraded,
    /// Three servers on this machine, and `pinrail bench` on them.
    Bench {
        /// Arguments of `pinrail bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Ours beside etcd, PostgreSQL and Restate, by turns: ratios of operations in a second, latency, CPU time and memory.
    #[command(
        after_help = "Examples:\n  chaos bench-peers --json report.json\n  chaos bench-peers --only start --only step --rounds 5 --duration 10s\n  chaos bench-peers --only memory --only flat --keys 100000 --rounds 1"
    )]
    BenchPeers(bench::Options),
    /// Throughput and latency while clients, open runs, keys, bundles, watchers or values grow: JSON, and a picture of each curve.
    #[command(
        after_help = "Examples:\n  chaos bench-curves --folder docs/curves --rounds 3\n  chaos bench-curves --only start-clients --duration 2s\n  chaos bench-curves --only put-keys --keys 100000"
    )]
    BenchCurves(bench::CurveOptions),
    /// SIGKILL of the leader to the next acknowledged write, ours beside etcd, by turns.
    #[command(
        after_help = "Examples:\n  chaos bench-failover --trials 60\n  chaos bench-failover --trials 3 --open-runs 1000000"
    )]
    BenchFailover {
        #[arg(long, default_value_t = 10)]
        trials: usize,
        /// Runs that are open meanwhile; etcd has as many keys.
        #[arg(long, default_value_t = 0)]
        open_runs: u64,
    },
    /// Whole nodes in one process under simulated faults, seed by seed.
    #[cfg(feature = "simulation")]
    Sim {
        #[arg(long, default_value_t = 200)]
        seeds: u64,
    },
    /// One seed of the simulation.
    #[cfg(feature = "simulation")]
    SimOne,
    /// One switch with a short cap, whose leader crashes at each entry of the log until its drain is over.
    #[cfg(feature = "simulation")]
    SimSwitch {
        /// Only every so many entries.
        #[arg(long, default_value_t = 1)]
        stride: usize,
    },
    /// The same with one crash.
    #[cfg(feature = "simulation")]
    SimSwitchOne {
        #[arg(long)]
        crash_at: u64,
    },
    /// The main job from end to end: pins, a switch with a killed leader, caps, a rollback.
    Demo(DemoOptions),
    /// Candidates of every kind, released at the same time: each comes to what it deserves.
    DemoRelease,
}

fn fault_kind(word: &str) -> Result<FaultKind, String> {
    serde_json::from_value(serde_json::Value::from(word)).map_err(|_| "no such fault".to_owned())
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    // The simulation owns time and tasks: it runs outside of any runtime.
    #[cfg(feature = "simulation")]
    {
        let (seed, folder) = (arguments.seed, tempfile::tempdir()?);
        match arguments.command {
            Command::Sim { seeds } => return command::many(seed, seeds),
            Command::SimOne => return command::one(seed, folder.path()),
            Command::SimSwitch { stride } => return command::switch(seed, stride, folder.path()),
            Command::SimSwitchOne { crash_at } => {
                return command::switch_one(seed, crash_at, folder.path());
            }
            _ => {}
        }
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(real(arguments))
}

/// Everything that meets real processes.
async fn real(arguments: Arguments) -> Result<ExitCode> {
    let setting =
        Setting { binaries: Binaries::locate()?, seed: arguments.seed, out: arguments.out };
    // It hears the signals by itself, and shows what it has measured so far.
    if let Command::Bench { arguments } = &arguments.command {
        return Ok(match bench::own(&setting, arguments).await? {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    // Dropping the scenario ends its processes.
    let passed = tokio::select! {
        biased;
        number = asked_to_stop() => {
            eprintln!("stopped by a signal; all processes are ended");
            return Ok(ExitCode::from(128 + number?));
        }
        passed = carry_out(&setting, arguments.command) => passed?,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for Ctrl-C, SIGTERM or the end of the terminal, and gives the number of the signal.
async fn asked_to_stop() -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stopped_by = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hang_up.recv() => SignalKind::hangup(),
    };
    Ok(u8::try_from(stopped_by.as_raw_value())?)
}

/// What clients waited while members failed.
async fn waited(
    setting: &Setting,
    group: Group,
    trials: u32,
    only: Option<FaultKind>,
) -> Result<bool> {
    let found = outages::outages(setting, group, trials, only).await?;
    print!("{found}");
    Ok(found.passed())
}

async fn carry_out(setting: &Setting, command: Command) -> Result<bool> {
    Ok(match command {
        Command::Run { minutes, storm: each, namespaces, only } => {
            let ground = if namespaces { Ground::Namespaces } else { Ground::Loopback };
            storm::run(setting, minutes, each, ground, only).await?
        }
        Command::KillAll { cycles } => {
            let report = kill_all::kill_all(setting, cycles).await?;
            print!("{report}");
            report.passed()
        }
        Command::Failover { trials } => waited(setting, Group::Failover, trials, None).await?,
        Command::Ends { trials, only } => waited(setting, Group::Ends, trials, only).await?,
        Command::PowerLoss { cycles } => {
            let found = power_loss::power_loss(setting, cycles).await?;
            print!("{found}");
            found.passed()
        }
        Command::Partitions { trials, only } => waited(setting, Group::Cuts, trials, only).await?,
        Command::Disks { trials, only } => waited(setting, Group::Disks, trials, only).await?,
        Command::Weather { trials, only } => waited(setting, Group::Weather, trials, only).await?,
        Command::Strain { trials, only } => waited(setting, Group::Strain, trials, only).await?,
        Command::SwitchCost { pins, switches } => {
            let cost = switch_cost::switch_cost(setting, Size { pins, switches }).await?;
            print!("{cost}");
            cost.passed()
        }
        Command::Flood { steps, pairs } => {
            let found = flood::flood(setting, flood::Size { steps, pairs }).await?;
            print!("{found}");
            found.passed()
        }
        Command::ManyRuns { runs, retention } => {
            let found = many_runs::many_runs(setting, many_runs::Size { runs, retention }).await?;
            print!("{found}");
            found.passed()
        }
        Command::MemoryCost { keys, releases } => {
            let size = memory_cost::Size { keys, releases };
            let found = memory_cost::memory_cost(setting, size).await?;
            print!("{found}");
            found.passed()
        }
        Command::ReleaseKills => {
            let found = release_kills::release_kills(setting).await?;
            print!("{found}");
            found.passed()
        }
        Command::RollbackCost { runs } => {
            let found = rollback_cost::rollback_cost(setting, runs).await?;
            print!("{found}");
            found.passed()
        }
        Command::ShadowCost { pairs } => {
            let found = shadow_cost::shadow_cost(setting, pairs).await?;
            print!("{found}");
            found.passed()
        }
        Command::Snapshot => {
            let report = snapshot::snapshot(setting).await?;
            print!("{report}");
            report.passed()
        }
        Command::Overload => {
            let found = overload::overload(setting).await?;
            print!("{found}");
            found.passed()
        }
        Command::Upgrade { from } => {
            let found = upgrade::upgrade(setting, &from).await?;
            print!("{found}");
            found.passed()
        }
        Command::Membership { changes } => {
            let found = membership::membership(setting, changes).await?;
            print!("{found}");
            found.passed()
        }
        Command::Watchers { watchers, kills } => {
            let size = watchers::Size { watchers, kills };
            let found = watchers::watchers(setting, size).await?;
            print!("{found}");
            found.passed()
        }
        Command::LateWorkers { trials } => {
            let found = late_workers::late_workers(setting, trials).await?;
            print!("{found}");
            found.passed()
        }
        Command::Moves { pins, moves } => {
            let found = moves::moves(setting, moves::Size { pins, moves }, None).await?;
            print!("{found}");
            found.passed()
        }
        Command::Degraded => {
            let found = degraded::degraded(setting).await?;
            print!("{found}");
            found.passed()
        }
        Command::BenchPeers(options) => {
            let report = bench::peers(setting, &options).await?;
            print!("{report}");
            report.passed()
        }
        Command::BenchCurves(options) => {
            bench::curves(setting, &options).await?;
            true
        }
        Command::BenchFailover { trials, open_runs } => {
            let found = bench::failover(setting, trials, open_runs).await?;
            print!("{found}");
            found.passed()
        }
        Command::Bench { .. } => anyhow::bail!("it hears the signals by itself"),
        Command::Demo(options) => demo(setting, &options).await?,
        Command::DemoRelease => demo_release(setting).await?,
        #[cfg(feature = "simulation")]
        Command::Sim { .. }
        | Command::SimOne
        | Command::SimSwitch { .. }
        | Command::SimSwitchOne { .. } => {
            anyhow::bail!("the simulation runs outside of the runtime")
        }
    })
}
