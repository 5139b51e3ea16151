//! A short share of the faults against real processes, with fixed seeds. `make chaos` runs more.

use std::time::Duration;

use clap::Parser as _;
use pinrail_chaos_tests::bench;
use pinrail_chaos_tests::cluster::Ground;
use pinrail_chaos_tests::config::Binaries;
use pinrail_chaos_tests::history::FaultKind;
use pinrail_chaos_tests::report::Report;
use pinrail_chaos_tests::scenario::outages::Group;
use pinrail_chaos_tests::scenario::plan::Plan;
use pinrail_chaos_tests::scenario::switch_cost::Size;
use pinrail_chaos_tests::scenario::{
    Setting, degraded, kill_all, late_workers, membership, moves, outages, power_loss,
    release_kills, rollback_cost, snapshot, storm, switch_cost, upgrade, watchers,
};
use serde_json::Value as Json;

/// Debug binaries on a busy machine: the bounds of time are judged by the make targets on release ones.
const LONGEST_GAP_US: u64 = 5_000_000;

/// Network namespaces and loop devices: the error says what this machine lacks.
const NEEDS_ROOT: &str = "CI is root on a machine that has them";

fn setting(seed: u64) -> Setting {
    let binaries = Binaries::locate().expect("`make test` builds the binaries first");
    Setting { binaries, seed, out: None }
}

fn must_pass(report: &Report) {
    assert!(report.passed(), "{report}");
    assert!(report.compared > 500, "only {} statements were compared", report.compared);
}

#[tokio::test]
async fn storm_of_kills_and_pauses_breaks_no_promise() {
    let plan = Plan::draw(11, Duration::from_secs(16), Ground::Loopback);
    let report = storm::storm(&setting(11), &plan).await.expect("the storm runs");
    must_pass(&report);
}

#[tokio::test]
async fn storm_of_paused_leaders_breaks_no_promise() {
    let plan =
        Plan::draw(12, Duration::from_secs(14), Ground::Loopback).only(FaultKind::PauseLeader);
    let report = storm::storm(&setting(12), &plan).await.expect("the storm runs");
    must_pass(&report);
}

#[tokio::test]
async fn storm_of_killed_and_paused_workers_breaks_no_promise() {
    let plan =
        Plan::draw(13, Duration::from_secs(14), Ground::Loopback).only(FaultKind::PauseWorker);
    let report = storm::storm(&setting(13), &plan).await.expect("the storm runs");
    must_pass(&report);
}

#[tokio::test]
async fn killing_all_members_at_once_loses_nothing() {
    let report = kill_all::kill_all(&setting(14), 2).await.expect("the cycles run");
    must_pass(&report);
}

#[tokio::test]
async fn killing_the_leader_stops_writes_for_a_moment_only() {
    let found = outages::outages(&setting(15), Group::Failover, 3, None).await;
    let found = found.expect("the trials run");
    must_pass(&found.report);
    assert!(found.longest_us() < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn a_leader_that_is_stopped_in_order_hands_over_first() {
    let only = Some(FaultKind::StopLeader);
    let found = outages::outages(&setting(23), Group::Ends, 3, only).await;
    let found = found.expect("the trials run");
    must_pass(&found.report);
    assert!(found.longest_us() < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn follower_past_the_tail_catches_up_by_snapshot() {
    let report = snapshot::snapshot(&setting(16)).await.expect("the follower catches up");
    must_pass(&report);
}

#[tokio::test]
async fn every_verb_answers_with_one_and_with_two_members_stopped() {
    let found = degraded::degraded(&setting(17)).await.expect("the verbs run");
    assert!(found.passed(), "{found}");
}

#[tokio::test]
async fn open_pins_expire_in_bounded_batches_while_runs_start() {
    let size = Size { pins: 1_500, switches: 10 };
    let cost = switch_cost::switch_cost(&setting(18), size).await.expect("it is measured");
    must_pass(&cost.report);
    assert_eq!(cost.revisions, 1, "a switch is one command\n{cost}");
    assert_eq!(cost.expired, size.pins, "{cost}");
    assert!(cost.largest_batch <= 256 && cost.starts.count > 0, "{cost}");
}

#[tokio::test]
async fn a_release_comes_to_its_end_though_its_leader_is_killed_at_each_transition() {
    let found = release_kills::release_kills(&setting(19)).await.expect("it is played");
    assert!(found.passed(), "{found}");
}

#[tokio::test]
async fn a_rollback_applies_its_policy_to_exactly_the_open_runs_of_the_bundle_that_is_left() {
    let found = rollback_cost::rollback_cost(&setting(20), 600).await.expect("it is measured");
    assert!(found.is_exact(), "{found}");
}

#[tokio::test]
async fn a_member_that_is_cut_off_never_lies_and_the_others_serve() {
    let found = outages::outages(&setting(21), Group::Cuts, 1, None).await.expect(NEEDS_ROOT);
    must_pass(&found.report);
    assert_eq!(found.kinds(), 5, "one of each kind\n{found}");
    assert!(found.longest_us() < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn a_member_whose_disk_lets_it_down_ends_or_goes_on_and_loses_nothing() {
    let found = outages::outages(&setting(24), Group::Disks, 1, None).await.expect(NEEDS_ROOT);
    must_pass(&found.report);
    assert_eq!(found.kinds(), 4, "one of each kind\n{found}");
    assert!(found.longest_us() < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn links_that_are_slow_lossy_and_wild_break_no_promise() {
    let found = outages::outages(&setting(25), Group::Weather, 1, None).await.expect(NEEDS_ROOT);
    must_pass(&found.report);
    assert_eq!(found.kinds(), 3, "one of each kind\n{found}");
}

#[tokio::test]
async fn a_leader_short_of_processor_or_with_another_clock_breaks_no_promise() {
    let found = outages::outages(&setting(26), Group::Strain, 1, None).await.expect(NEEDS_ROOT);
    must_pass(&found.report);
    assert_eq!(found.kinds(), 2, "one of each kind\n{found}");
}

#[tokio::test]
async fn members_that_are_restarted_one_by_one_as_a_build_agree_throughout() {
    let setting = setting(27);
    let found = upgrade::upgrade(&setting, &setting.binaries.pinrail).await;
    let found = found.expect("it is upgraded");
    must_pass(&found.report);
    assert_eq!(found.waits.count, 5, "{found}");
    assert!(found.waits.max_us < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn storm_of_leaders_that_are_not_heard_breaks_no_promise() {
    let plan = Plan::draw(22, Duration::from_secs(14), Ground::Namespaces);
    let plan = plan.only(FaultKind::PartitionLeaderOut);
    let report = storm::storm(&setting(22), &plan).await.expect(NEEDS_ROOT);
    must_pass(&report);
}

#[tokio::test]
async fn loss_of_power_of_all_members_at_once_loses_nothing() {
    let found = power_loss::power_loss(&setting(23), 2).await.expect(NEEDS_ROOT);
    must_pass(&found.report);
    assert!(found.serving.max_us < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn three_servers_are_measured_by_the_command_line() {
    let words = ["start", "step", "chain", "watch", "dispatch"];
    let flags = ["--clients", "4", "--duration", "300ms", "--warm-up", "0s"];
    let words: Vec<String> = words.into_iter().chain(flags).map(str::to_owned).collect();
    assert!(bench::own(&setting(1), &words).await.expect("the servers run"), "it fails");
}

/// What a command line gives.
#[derive(Debug, clap::Parser)]
struct Line<A: clap::Args> {
    #[command(flatten)]
    options: A,
}

fn options<A: clap::Args>(words: &[&str]) -> A {
    let short = ["--rounds", "1", "--duration", "300ms", "--warm-up", "0s"];
    let words = ["bench"].iter().chain(words).chain(&short);
    Line::<A>::parse_from(words).options
}

#[tokio::test]
async fn rows_that_have_no_peer_are_measured_with_those_that_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("report.json");
    let json = path.to_str().expect("it is UTF-8");
    let words = ["--only", "dispatch", "--only", "flat", "--keys", "100", "--json", json];
    let report = bench::peers(&setting(1), &options(&words)).await.expect("they are measured");
    let written: Json =
        serde_json::from_slice(&std::fs::read(&path).expect("it is written")).expect("it is JSON");
    let rows = written["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["row"].as_str()).collect();
    assert_eq!(names, ["dispatch", "flat"], "{report}");
    for side in rows.iter().flat_map(|row| [&row["ours"], &row["theirs"]]) {
        assert!(side["median"]["operations"].as_u64() > Some(0), "{report}");
    }
}

#[tokio::test]
async fn a_curve_is_written_down_as_figures_and_as_a_picture() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_str().expect("it is UTF-8");
    let words = ["--only", "put-keys", "--keys", "1100", "--folder", path];
    bench::curves(&setting(1), &options(&words)).await.expect("it is measured");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("it is there");
    let figures: Json = serde_json::from_str(&read("curves.json")).expect("it is JSON");
    assert_eq!(figures["curves"][0]["points"].as_array().map(Vec::len), Some(2), "{figures}");
    assert_eq!(read("put-keys.svg").matches("<circle").count(), 6);
}

#[tokio::test]
async fn a_member_is_replaced_by_an_empty_one_under_load() {
    let found = membership::membership(&setting(31), 2).await.expect("the changes are made");
    must_pass(&found.report);
    assert!(found.waits.max_us < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn watchers_hear_every_event_once_while_the_leader_is_killed() {
    let size = watchers::Size { watchers: 60, kills: 1 };
    let found = watchers::watchers(&setting(32), size).await.expect("they watch");
    must_pass(&found.report);
    assert!(found.waits.max_us < LONGEST_GAP_US, "{found}");
}

#[tokio::test]
async fn what_a_worker_says_too_late_is_refused() {
    let found = late_workers::late_workers(&setting(33), 1).await.expect("the faults are made");
    must_pass(&found.report);
}

#[tokio::test]
async fn runs_start_on_the_live_bundle_at_every_member_after_each_move() {
    let size = moves::Size { pins: 200, moves: 5 };
    let found = moves::moves(&setting(34), size, None).await.expect("the moves are made");
    assert!(found.is_exact(), "{found}");
}
