//! What a story can ask: reads, and the passing of time.

use pinrail_proto::v1;
use pinrail_proto::v1::memory_scope::Scope;
use pinrail_state_machine::effect::StepId;
use pinrail_state_machine::outcome::Stop;
use pinrail_state_machine::query::{self, EventFilter, RunFilter};

use super::command::{agent_ref, run_kind};
use super::evals;
use super::line::{Line, span};
use super::world::World;
use super::{drift, drill, outside, release, show, signal};

/// Answers a question; `None` when the line is none.
pub(super) fn ask(world: &mut World, line: &mut Line) -> Option<Vec<String>> {
    let told = match line.verb.as_str() {
        "wait" => {
            let ms = span(&line.word());
            world.wait(ms);
            Ok(vec![format!("it is +{}", show::span(world.elapsed_ms()))])
        }
        "route" => route(world, line),
        "counters" => counters(world, line),
        "bundles" => bundles(world, line),
        "manifest" => manifest(world, line),
        "diff" => diff(world, line),
        "release" => release::release(world, line),
        "releases" => release::releases(world, line),
        "drill" => drill::drill(world, line),
        "drills" => drill::drills(world, line),
        "rows-of" => Ok(rows_of(world, line)),
        "signals" => signal::signals(world, line),
        "drift" => drift::drift(world, line),
        "explain" => signal::explain(world, line),
        "plan" => release::plan(world, line),
        "drains" => drains(world, line),
        "environments" => environments(world, line),
        "resolve" => resolve(world, line),
        "runs" => runs(world, line),
        "pin" => pin(world, line),
        "assigned" => assigned(world, line),
        "branches" => branches(world, line),
        "steps" => steps(world, line),
        "sessions" => sessions(world, line),
        "get" => get(world, line),
        "list" => list(world, line),
        "history" => history(world, line),
        "costs" => costs(world, line),
        "changes" => changes(world, line),
        "memory-diff" => memory_diff(world, line),
        "agents" => agents(world, line),
        "namespaces" => namespaces(world),
        "namespace" => namespace(world, line),
        "events" => events(world, line),
        "hooks" => outside::hooks(world, line),
        "deliveries" => outside::deliveries(world, line),
        "sent" => outside::sent(world, line),
        "audit" => outside::audit(world, line),
        "verify-audit" => outside::verify_audit(world),
        _ => evals::ask(world, line)?,
    };
    Some(match told {
        Ok(told) if told.is_empty() => vec!["nothing".to_owned()],
        Ok(told) => told,
        Err(Stop::Rejected(rejection)) => show::refused(&rejection),
        Err(Stop::Fault(fault)) => panic!("{fault}"),
    })
}

pub(super) type Told = Result<Vec<String>, Stop>;

/// Namespace and agent.
pub(super) fn agent(line: &mut Line) -> (String, String) {
    let agent = agent_ref(&line.word());
    (agent.namespace, agent.agent_id)
}

/// `rows-of 2`: how many rows an agent has, by its number.
fn rows_of(world: &World, line: &mut Line) -> Vec<String> {
    let number: u32 = line.word().parse().expect("rows-of names the agent's number");
    let of_agent = |key: &[u8]| key.get(1..5) == Some(&number.to_be_bytes()[..]);
    let rows = world.rows().filter(|(key, _)| of_agent(key)).count();
    vec![format!("{rows} rows")]
}

fn route(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let route = query::agent(world.read(), &namespace, &agent)?.route.unwrap_or_default();
    let or_none = |id: String| if id.is_empty() { "none".to_owned() } else { id };
    Ok(vec![format!(
        "live: {}, standby: {}, epoch {}, changed {} @{}",
        or_none(route.live_bundle_id),
        or_none(route.standby_bundle_id),
        route.epoch,
        show::at(route.changed_at.as_ref()),
        route.revision
    )])
}

fn counters(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let agent = query::agent(world.read(), &namespace, &agent)?;
    let cluster = query::cluster(world.read())?;
    let mut lines = vec![format!(
        "open runs: {} of the agent, {} of the cluster",
        agent.open_runs, cluster.open_runs
    )];
    for status in query::bundle_statuses(world.read(), &namespace, &agent.agent_id, world.now_ms())?
    {
        let bundle = status.bundle.unwrap_or_default();
        let pins = bundle.open_pins.unwrap_or_default();
        lines.push(format!(
            "{}: {} open pins, {} live, {} steps waiting",
            bundle.bundle_id, pins.total, pins.live, status.ready_steps
        ));
    }
    Ok(lines)
}

fn bundles(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let (bundles, _) = query::bundles(world.read(), &namespace, &agent, 0, "")?;
    let told = |bundle: &v1::Bundle| {
        let pins = bundle.open_pins.as_ref().map_or(0, |pins| pins.total);
        format!("{}: {}, {pins} open", bundle.bundle_id, show::bundle_state(bundle.state()))
    };
    Ok(bundles.iter().map(told).collect())
}

fn manifest(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let bundle = query::bundle(world.read(), &namespace, &agent, &line.word())?;
    let manifest = bundle.manifest.unwrap_or_default();
    let parts = bundle.part_digests.unwrap_or_default();
    let mut lines = vec![format!("entry {}", manifest.entry)];
    for (part, digest) in [
        ("code", parts.code),
        ("prompts", parts.prompts),
        ("models", parts.models),
        ("indexes", parts.indexes),
        ("tools", parts.tools),
        ("whole", bundle.digest),
    ] {
        lines.push(format!("{part}: {}", &digest[..12]));
    }
    Ok(lines)
}

fn diff(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let changes = query::diff(world.read(), &namespace, &agent, &line.word(), &line.word())?;
    let told = |change: &v1::PartChange| {
        let kind = show::word(change.kind().as_str_name(), "CHANGE_KIND_");
        let part = format!("{} {}", change.part, change.name);
        format!("{}: {kind}, {:?} -> {:?}", part.trim(), change.before, change.after)
    };
    Ok(changes.iter().map(told).collect())
}

fn drains(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let drains = query::drains(world.read(), &namespace, &agent, &line.word_or_none())?;
    Ok(drains.iter().map(show::drain).collect())
}

fn environments(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let all = query::environments(world.read(), &namespace, &agent, &line.word_or_none())?;
    Ok(all.iter().map(show::environment).collect())
}

fn resolve(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let key = line.word_or_none();
    let (bundle, epoch, endpoint) = query::resolve_route(world.read(), &namespace, &agent, &key)?;
    Ok(vec![format!("{bundle}, epoch {epoch}, endpoint {endpoint:?}")])
}

fn runs(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let open = line.flag("open");
    let kind = run_kind(&line.text("kind"));
    let filter = RunFilter {
        open,
        kind,
        bundle_id: line.text("bundle"),
        waiting_for: line.text("waiting-for"),
        ..RunFilter::default()
    };
    let (runs, _) = query::runs(world.read(), &namespace, &agent, &filter, 0, "")?;
    let told = |run: &v1::Run| {
        let bundle = run.pin.as_ref().map_or("", |pin| pin.bundle_id.as_str());
        let why = match run.end_reason() {
            v1::EndReason::Unspecified => String::new(),
            reason => format!(", {}", show::word(reason.as_str_name(), "END_REASON_")),
        };
        let failure = run.failure.as_ref().map_or_else(String::new, |f| format!(", {}", f.reason));
        let state = show::run_state(run.state());
        format!("{}: {state} on {bundle}, step {}{why}{failure}", run.run_id, run.steps)
    };
    Ok(runs.iter().map(told).collect())
}

fn pin(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let found = query::pin(world.read(), &namespace, &agent, &line.word())?;
    let state = if found.open { "open" } else { "over" };
    let pin = found.pin.unwrap_or_default();
    Ok(vec![format!("{} on {}, {state}, {}", found.run_id, pin.bundle_id, show::pin(&pin))])
}

fn get(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let (scope, at) = (scope(line), line.number("at").unwrap_or(0));
    let key = line.word();
    let found = query::memory_get(world.read(), &namespace, &agent, scope.as_ref(), &key, at)?;
    Ok(vec![show::memory(found.version.as_ref())])
}

fn list(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let scope = scope(line);
    let prefix = line.word_or_none();
    let read = world.read();
    let found =
        query::memory_list(read, &namespace, &agent, scope.as_ref(), &prefix, 0, false, 0, "")?;
    Ok(found.versions.iter().map(|version| show::memory(Some(version))).collect())
}

fn history(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let scope = scope(line);
    let key = line.word();
    let found =
        query::memory_history(world.read(), &namespace, &agent, scope.as_ref(), &key, 0, "")?;
    Ok(found.versions.iter().map(|version| show::memory(Some(version))).collect())
}

fn changes(world: &World, line: &mut Line) -> Told {
    let (namespace, agent_id) = agent(line);
    let filter = query::MemoryFilter {
        namespace,
        agent_id,
        scope: scope(line),
        prefix: line.text("prefix"),
        after_revision: line.number("after").unwrap_or(0),
    };
    let found = query::memory_changes(world.read(), &filter, 100)?;
    let mut lines: Vec<String> =
        found.versions.iter().map(|version| show::memory(Some(version))).collect();
    lines.push(format!("up to @{}, layer {}", found.revision, found.layer));
    Ok(lines)
}

/// `memory-diff support v2 v1 late`: what v2 sees and v1 does not, or sees otherwise.
fn memory_diff(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let scope = |id: String| {
        let run = id.strip_prefix("run:").map(|run| Scope::RunId(run.to_owned()));
        Some(v1::MemoryScope { scope: Some(run.unwrap_or(Scope::BundleId(id))) })
    };
    let late = line.flag("late");
    let diff = query::MemoryDiff {
        from: scope(line.word()),
        to: scope(line.word_or_none()),
        prefix: line.text("prefix"),
        late,
        keys_only: false,
    };
    let found = query::memory_diff(world.read(), &namespace, &agent, &diff, 0, "")?;
    let side = |it: &Option<v1::MemoryVersion>| match it {
        Some(it) => show::memory(Some(it)),
        None => "nothing".to_owned(),
    };
    let told =
        |it: &v1::MemoryDifference| format!("{}: {} | {}", it.key, side(&it.from), side(&it.to));
    Ok(found.differences.iter().map(told).collect())
}

fn costs(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let by = v1::CostBy::from_str_name(&format!("COST_BY_{}", line.text("by").to_uppercase()));
    let filter = query::CostFilter { by: by.unwrap_or_default(), bundle_id: line.text("bundle") };
    let found = query::costs(world.read(), &namespace, &agent, &filter, 0, "")?;
    let told = |name: String, it: &v1::Cost| {
        let (input, output) = (it.input_tokens, it.output_tokens);
        format!(
            "{name}: {} millionths, {input} in, {output} out, {} calls",
            it.cost_micros, it.calls
        )
    };
    let name = |it: &v1::Cost| {
        let kind = show::word(it.kind().as_str_name(), "RUN_KIND_");
        let kind = if it.kind() == v1::RunKind::Unspecified { String::new() } else { kind };
        let parts = [&it.run_id, &it.bundle_id, &kind, &it.step, &it.model];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = found.costs.iter().map(|it| told(name(it), it)).collect();
    lines.push(told("total".to_owned(), &found.total.unwrap_or_default()));
    Ok(lines)
}

fn scope(line: &mut Line) -> Option<v1::MemoryScope> {
    let bundle = line.option("bundle").map(Scope::BundleId);
    let run = line.option("run").map(Scope::RunId);
    bundle.or(run).map(|scope| v1::MemoryScope { scope: Some(scope) })
}

fn agents(world: &World, line: &mut Line) -> Told {
    let (agents, _) = query::agents(world.read(), &line.word_or_none(), 0, "")?;
    let told = |agent: &v1::Agent| {
        format!("{}/{}: {} open runs", agent.namespace, agent.agent_id, agent.open_runs)
    };
    Ok(agents.iter().map(told).collect())
}

fn namespaces(world: &World) -> Told {
    let namespaces = query::namespaces(world.read())?;
    let told = |it: &v1::Namespace| format!("{}: {} agents", it.namespace, it.agents);
    Ok(namespaces.iter().map(told).collect())
}

fn namespace(world: &World, line: &mut Line) -> Told {
    let it = query::namespace(world.read(), &line.word())?;
    let used = it.used.unwrap_or_default();
    let number = Option::unwrap_or_default;
    Ok(vec![format!(
        "{}; {} open runs, {} agents, {} bytes and {} bundles in all",
        show::namespace(&it),
        number(used.open_runs),
        number(used.agents),
        number(used.memory_bytes),
        number(used.bundles),
    )])
}

fn events(world: &World, line: &mut Line) -> Told {
    let filter = EventFilter {
        type_: line.text("type"),
        agent_id: line.text("agent"),
        after_revision: line.number("after").unwrap_or(0),
        newest_first: line.flag("newest-first"),
        ..EventFilter::default()
    };
    let limit = usize::try_from(line.number("limit").unwrap_or(100)).unwrap();
    let (events, next) = query::events(world.read(), &filter, limit)?;
    let mut lines: Vec<String> =
        events.iter().map(|it| format!("@{} {}", it.revision, show::event(it))).collect();
    lines.push(format!("go on after {next}"));
    Ok(lines)
}

/// What a worker is given with the lease of a run's newest step.
fn assigned(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let run_id = line.word();
    let number = query::agent_number(world.read(), &namespace, &agent)?;
    let newest = query::run(world.read(), &namespace, &agent, &run_id)?.steps;
    let step = line.number("step").map_or(newest, |n| u32::try_from(n).unwrap());
    let id = StepId { agent: number, run_id, step };
    let mut given = query::dispatch::assignments(world.read(), [(&id, None)])?;
    let given = given.remove(0).map_err(Stop::Rejected)?;
    let text = |payload: Option<v1::Payload>| {
        String::from_utf8_lossy(&payload.unwrap_or_default().data).into_owned()
    };
    let woken = match given.woken {
        None => String::new(),
        Some(v1::Woken { child: Some(child), .. }) => {
            let state = show::run_state(child.state());
            format!(", woken by {}, which is {state} with {:?}", child.run_id, text(child.output))
        }
        Some(woken) if woken.signal.is_empty() => ", woken by time".to_owned(),
        Some(woken) => format!(", woken by {} with {:?}", woken.signal, text(woken.value)),
    };
    let joins = given.join.map_or_else(String::new, |join| {
        let settled = if join.settle { ", settled" } else { "" };
        format!(", joins {}{settled}", join.branches)
    });
    let traced = match given.trace_parent.as_str() {
        "" => String::new(),
        parent => format!(", under {parent}"),
    };
    let input = text(given.input);
    let (name, attempt) = (given.name, given.attempt);
    let recorded = match given.checkpoints.len() {
        0 => String::new(),
        count => format!(", {count} checkpoints"),
    };
    Ok(vec![format!("{name} of attempt {attempt}: {input:?}{woken}{joins}{recorded}{traced}")])
}

/// How the branches of a join ended: `branches support a 2`.
fn branches(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let run_id = line.word();
    let join = line.word().parse().expect("branches names the join's number");
    let (branches, _) = query::branches(world.read(), &namespace, &agent, &run_id, join, 0, "")?;
    Ok(branches.into_iter().map(|branch| show::branch(&branch)).collect())
}

fn sessions(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let (sessions, _) = query::sessions(world.read(), &namespace, &agent, 0, "")?;
    Ok(sessions.iter().map(show::session).collect())
}

fn steps(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let (steps, _) = query::steps(world.read(), &namespace, &agent, &line.word(), 0, "")?;
    Ok(steps.iter().map(show::step_row).collect())
}
