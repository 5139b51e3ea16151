//! What would be too long to read as a story: limits, and what a route change costs.

use pinrail_proto::limits;

use super::script::answer;
use super::world::World;

/// The first line of what came of a command.
fn first(world: &mut World, command: &str) -> String {
    answer(world, command).remove(0)
}

fn world() -> World {
    let mut world = World::new();
    first(&mut world, "init");
    first(&mut world, "create-agent support max-age=1h drain-cap=10m grace=30s");
    world
}

fn assert_refused(told: &str, reason: &str) {
    assert!(told.starts_with(&format!("refused {reason}: ")), "{told}");
}

#[test]
fn an_agent_has_at_most_100_bundles() {
    let mut world = world();
    for number in 0..limits::BUNDLES_PER_AGENT {
        let told = first(&mut world, &format!("create-bundle support v{number}"));
        assert!(told.starts_with("bundle "), "{told}");
    }
    assert_refused(&first(&mut world, "create-bundle support more"), "LIMIT_EXCEEDED");
    let again = first(&mut world, "create-bundle support v7");
    assert!(again.contains("(already)"), "{again}");
}

#[test]
fn a_cluster_has_at_most_1000_namespaces() {
    let mut world = world();
    for number in 1..limits::NAMESPACES {
        let told = first(&mut world, &format!("create-namespace n{number}"));
        assert!(told.starts_with("namespace "), "{told}");
    }
    assert_refused(&first(&mut world, "create-namespace more"), "LIMIT_EXCEEDED");
}

#[test]
fn a_run_keeps_at_most_1000_signals() {
    let mut world = world();
    for command in ["create-bundle support v1", "switch support v1", "start support a"] {
        first(&mut world, command);
    }
    for number in 0..limits::PENDING_SIGNALS {
        let told = first(&mut world, &format!("signal support a s{} value={number}", number % 7));
        assert!(told.starts_with("queued @"), "{told}");
    }
    assert_refused(&first(&mut world, "signal support a more"), "LIMIT_EXCEEDED");
    first(&mut world, "lease support a worker=w1");
    first(&mut world, "complete support a wait=s3 next=other lease-next=w1");
    let told = first(&mut world, "assigned support a");
    assert!(told.ends_with("woken by s3 with \"3\""), "the oldest of its name: {told}");
    let told = first(&mut world, "signal support a more");
    assert!(told.starts_with("running @"), "there is room again: {told}");
}

#[test]
fn what_is_too_large_is_refused_and_not_stored() {
    let mut world = world();
    first(&mut world, "create-bundle support v1");
    let prompt = "x".repeat(limits::MANIFEST_BYTES);
    let message = "x".repeat(limits::TEXT_BYTES + 1);
    let endpoint = "x".repeat(limits::ENDPOINT_BYTES + 1);
    for command in [
        format!("create-bundle support v2 prompt:system={prompt}"),
        format!("create-bundle support v2 message={message}"),
        format!("set-environment support v1 {endpoint}"),
    ] {
        assert_refused(&first(&mut world, &command), "LIMIT_EXCEEDED");
        assert_eq!(world.written, 1, "only the cluster's row moves on");
    }
    let description = format!("update-agent support description={message}");
    assert_refused(&first(&mut world, &description), "INVALID_POLICY");
}

/// Switch and rollback are one command each, and cost the same with a thousand open pins as with none.
#[test]
fn a_route_change_writes_the_same_rows_however_many_pins_are_open() {
    assert_eq!(route_changes_with(0), route_changes_with(1_000));
}

fn route_changes_with(pins: usize) -> [usize; 2] {
    let mut world = world();
    first(&mut world, "create-bundle support v1 prompt:system=one");
    first(&mut world, "create-bundle support v2 prompt:system=two");
    first(&mut world, "switch support v1");
    world.unchecked = true;
    start(&mut world, "a", pins);
    let told = first(&mut world, "switch support v2");
    assert!(told.starts_with("live: v2"), "{told}");
    let switch = world.written;
    start(&mut world, "b", pins);
    let told = first(&mut world, "rollback support from=v2 in-flight=cancel");
    assert!(told.starts_with("live: v1"), "{told}");
    let rollback = world.written;
    world.check_promises();
    [switch, rollback]
}

fn start(world: &mut World, prefix: &str, runs: usize) {
    for number in 0..runs {
        let told = first(world, &format!("start support {prefix}{number}"));
        assert!(told.contains("is queued"), "{told}");
    }
}

/// A sweep does as much as it is asked for and says whether more is due; in the end nothing is left.
#[test]
fn the_end_of_a_drain_is_swept_in_bounded_bites() {
    let mut world = world();
    first(&mut world, "create-bundle support v1 prompt:system=one");
    first(&mut world, "create-bundle support v2 prompt:system=two");
    first(&mut world, "switch support v1");
    world.unchecked = true;
    start(&mut world, "a", 600);
    first(&mut world, "switch support v2");
    first(&mut world, "wait 10m");
    let mut bites = Vec::new();
    while bites.last().is_none_or(|told: &String| told.contains("more is due")) {
        bites.push(first(&mut world, "tick 1"));
        world.check_promises();
    }
    assert_eq!(bites.len(), 3, "{bites:?}");
    let drain = answer(&mut world, "drains support v1").remove(0);
    assert!(drain.contains("0 open") && drain.contains("over since +10m"), "{drain}");
}
