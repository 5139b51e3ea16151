//! What came of a command, in words: the answer, what happened, and what a leader has to do.

use pinrail_proto::log;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::time::timestamp_millis;
use pinrail_proto::v1;
use pinrail_state_machine::effect::{Effect, StepId};
use pinrail_state_machine::outcome::Applied;
use pinrail_state_machine::query::{self, EventFilter};

use super::evals;
use super::world::{BEGIN_MS, World};

pub(super) fn applied(world: &World, applied: &Applied) -> Vec<String> {
    let revision = applied.outcome.revision;
    let Some(result) = &applied.outcome.result else { panic!("an outcome without a result") };
    let mut lines = answer(result);
    if let Some(first) = lines.first_mut() {
        first.push_str(&format!(" @{revision}"));
    }
    lines.extend(events(world, revision));
    lines.extend(applied.effects.iter().filter_map(effect).map(|told| format!("leader: {told}")));
    lines
}

fn answer(result: &Answer) -> Vec<String> {
    match result {
        Answer::Rejection(rejection) => refused(rejection),
        Answer::Done(_) => vec!["done".to_owned()],
        Answer::StartRun(it) => start(it),
        Answer::Step(it) => vec![step(it)],
        Answer::Memory(it) => vec![memory(it.version.as_ref())],
        Answer::Switch(it) => switch(it),
        Answer::Rollback(it) => rollback(it),
        Answer::Run(it) => {
            let delivered = if it.delivered { ", the signal ended its wait" } else { "" };
            vec![format!("{}{}{delivered}", run_state(it.state()), again(it.already))]
        }
        Answer::Tick(it) => {
            vec![format!("{} items{}", it.items, if it.more { ", more is due" } else { "" })]
        }
        Answer::Namespace(it) => {
            let namespace = it.namespace.clone().unwrap_or_default();
            vec![format!("namespace {}{}", self::namespace(&namespace), again(it.already))]
        }
        Answer::Agent(it) => vec![agent(it)],
        Answer::Bundle(it) => vec![bundle(it)],
        Answer::Environment(it) => vec![environment(it)],
        Answer::Drain(it) => vec![drain(it)],
        Answer::PromoteMemory(it) => vec![promoted(it)],
        Answer::RepinRun(it) => {
            let verb = if it.moved || it.already { "on" } else { "moves to" };
            let again = again(it.already);
            vec![format!("{} {verb} {}{again}", run_state(it.state()), it.bundle_id)]
        }
        Answer::Release(it) => {
            let release = it.release.clone().unwrap_or_default();
            vec![format!("{}{}", super::release::shown(&release), again(it.already))]
        }
        Answer::Drill(it) => super::drill::shown(&it.drill.clone().unwrap_or_default()),
        Answer::RecycleBundle(it) => {
            vec![format!("{} is recycled{}", it.bundle_id, again(it.already))]
        }
        Answer::ScoreRun(it) => {
            vec![format!("{} counts on {}{}", it.run_id, it.bundle_id, again(it.already))]
        }
        Answer::Firing(it) => {
            let firing = it.firing.clone().unwrap_or_default();
            vec![format!("{}{}", super::signal::fired(&firing), again(it.already))]
        }
        Answer::Drift(it) => {
            let mut told: Vec<String> = it.drifts.iter().map(super::drift::shown).collect();
            told.extend(it.already.then(|| "nothing was open any more".to_owned()));
            told
        }
        Answer::MuteSignal(it) => {
            let signal = word(it.signal().as_str_name(), "SIGNAL_KIND_");
            match &it.muted_until {
                None => vec![format!("{signal} is not muted")],
                some => vec![format!("{signal} is muted until {}", at(some.as_ref()))],
            }
        }
        Answer::Session(it) => vec![session(it)],
        Answer::EvalSet(_) | Answer::EvalReport(_) => evals::answer(result).into_iter().collect(),
        Answer::Redeliver(it) => {
            let gone = if it.gone == 0 { String::new() } else { format!(", {} gone", it.gone) };
            vec![format!("{} deliveries are pending again{gone}", it.deliveries)]
        }
        Answer::DiscardMemory(it) => {
            vec![format!(
                "{} versions of layer {} dropped{}",
                it.discarded,
                it.layer,
                rest(&it.next_key)
            )]
        }
    }
}

/// Its name, and what it has of what it may have.
pub(super) fn namespace(it: &v1::Namespace) -> String {
    let (quotas, used) = (it.quotas.unwrap_or_default(), it.used.unwrap_or_default());
    let amounts = [
        ("open runs", used.open_runs, quotas.open_runs),
        ("agents", used.agents, quotas.agents),
        ("bytes", used.memory_bytes, quotas.memory_bytes),
        ("bundles", used.bundles, quotas.bundles),
    ];
    let mut text = it.namespace.clone();
    for (what, used, limit) in amounts {
        if let Some(limit) = limit {
            text.push_str(&format!(", {} of {limit} {what}", used.unwrap_or_default()));
        }
    }
    text
}

fn promoted(it: &v1::PromoteMemoryResponse) -> String {
    let conflicts = if it.conflicts.is_empty() {
        String::new()
    } else {
        format!(" ({})", it.conflicts.join(", "))
    };
    format!(
        "layer {} to layer {}: {} promoted, {} skipped{conflicts}, {} the same{}",
        it.from_layer,
        it.to_layer,
        it.promoted,
        it.skipped,
        it.same,
        rest(&it.next_key)
    )
}

fn rest(next_key: &str) -> String {
    if next_key.is_empty() { String::new() } else { format!(", more behind {next_key}") }
}

pub(super) fn refused(rejection: &log::Rejection) -> Vec<String> {
    let mut lines = vec![format!("refused {}: {}", rejection.reason, rejection.message)];
    let fact = |(key, value): (&String, &String)| format!("  {key}: {value}");
    lines.extend(rejection.metadata.iter().map(fact));
    lines
}

fn start(it: &log::StartRunResult) -> Vec<String> {
    let pin = it.pin.clone().unwrap_or_default();
    vec![format!(
        "{} is {} on {}, {}{}{}",
        pin.run_id,
        run_state(it.state()),
        pin.bundle_id,
        self::pin(&pin),
        leased(it.token.as_ref()),
        again(it.already)
    )]
}

pub(super) fn pin(pin: &v1::Pin) -> String {
    let reason = word(pin.reason().as_str_name(), "PIN_REASON_");
    let endpoint =
        if pin.endpoint.is_empty() { String::new() } else { format!(", at {}", pin.endpoint) };
    let at_revision = match pin.memory_revision {
        0 => String::new(),
        revision => format!(" as of {revision}"),
    };
    format!(
        "layer {}{at_revision}, by {reason}, epoch {}, ends {} / {}{endpoint}",
        pin.layer,
        pin.epoch,
        at(pin.soft_end.as_ref()),
        at(pin.hard_end.as_ref()),
    )
}

fn step(it: &log::StepResult) -> String {
    let leased = leased(it.token.as_ref());
    let of = if it.run_id.is_empty() { String::new() } else { format!(" of {}", it.run_id) };
    format!("step {}{of}{leased}{}", it.step, if it.closed { ", the run is over" } else { "" })
}

fn leased(token: Option<&log::Token>) -> String {
    token.map_or_else(String::new, |token| {
        format!(", leased with token {}.{}", token.incarnation, token.revision)
    })
}

pub(super) fn memory(version: Option<&v1::MemoryVersion>) -> String {
    let Some(version) = version else { return "nothing there".to_owned() };
    let value = version.value.as_ref().map_or_else(
        || "deleted".to_owned(),
        |value| format!("{:?}", String::from_utf8_lossy(&value.data)),
    );
    let until = match &version.expires_at {
        None => String::new(),
        some => format!(", until {}", at(some.as_ref())),
    };
    format!(
        "{} = {value}, revision {}, layer {} of {}{until}",
        version.key, version.revision, version.layer, version.bundle_id
    )
}

fn switch(it: &v1::SwitchResponse) -> Vec<String> {
    let from = if it.from_bundle_id.is_empty() {
        String::new()
    } else {
        format!(", before: {}", it.from_bundle_id)
    };
    let live = format!("live: {}{from}, epoch {}{}", it.to_bundle_id, it.epoch, again(it.already));
    let mut lines = vec![live];
    lines.extend(it.drain.as_ref().map(drain));
    lines
}

fn rollback(it: &v1::RollbackResponse) -> Vec<String> {
    let mut lines = vec![format!(
        "live: {}, left: {}, epoch {}, in flight: {}, hidden keys: {}, of revision {}{}",
        it.to_bundle_id,
        it.from_bundle_id,
        it.epoch,
        word(it.in_flight().as_str_name(), "IN_FLIGHT_"),
        it.memory_keys_hidden,
        it.revision,
        again(it.already)
    )];
    lines.extend(it.drain.as_ref().map(drain));
    for effect in &it.side_effects {
        let class = word(effect.class().as_str_name(), "SIDE_EFFECTS_");
        lines.push(format!("not undone: {} called {} times, {class}", effect.tool, effect.calls));
    }
    lines
}

pub(super) fn drain(it: &v1::Drain) -> String {
    let oldest = match &it.oldest_pinned_at {
        None => String::new(),
        some => format!(", oldest {}", at(some.as_ref())),
    };
    let end = match (&it.deadline, it.over) {
        (None, _) => "no deadline".to_owned(),
        (some, false) => {
            format!("deadline {}, over by {}", at(some.as_ref()), at(it.drained_by.as_ref()))
        }
        (_, true) => format!("over since {}", at(it.over_at.as_ref())),
    };
    format!(
        "drain of {} ({}): {} open{oldest}, {end}",
        it.bundle_id,
        bundle_state(it.state()),
        it.open_pins.as_ref().map_or(0, |pins| pins.total),
    )
}

fn agent(it: &log::AgentResult) -> String {
    let agent = it.agent.clone().unwrap_or_default();
    let pause = agent.pause.clone().unwrap_or_default();
    let mut told = format!("agent {}/{}", agent.namespace, agent.agent_id);
    if pause.paused {
        told.push_str(if pause.reject { ", paused, starts refused" } else { ", paused" });
    }
    if !pause.bundle_ids.is_empty() {
        told.push_str(&format!(", paused bundles: {}", pause.bundle_ids.join(" ")));
    }
    told + again(it.already)
}

fn bundle(it: &log::BundleResult) -> String {
    let bundle = it.bundle.clone().unwrap_or_default();
    format!(
        "bundle {} is {}, digest {}{}",
        bundle.bundle_id,
        bundle_state(bundle.state()),
        &bundle.digest[..12],
        again(it.already)
    )
}

pub(super) fn environment(it: &v1::Environment) -> String {
    let endpoint =
        if it.endpoint.is_empty() { String::new() } else { format!(", at {}", it.endpoint) };
    let want = word(it.want().as_str_name(), "WANT_");
    let slots = if it.slots < 2 { String::new() } else { format!(", {} slots", it.slots) };
    format!("{}: want {want} ({}){slots}{endpoint}", it.bundle_id, it.reason)
}

/// Events of one revision, in order.
fn events(world: &World, revision: u64) -> Vec<String> {
    let filter = EventFilter { after_revision: revision - 1, ..EventFilter::default() };
    let (events, _) = query::events(world.read(), &filter, 1_000).unwrap();
    events.iter().map(|it| format!("event: {}", event(it))).collect()
}

pub(super) fn event(it: &v1::Event) -> String {
    let mut words = vec![it.r#type.clone()];
    let name =
        |key: &str, value: &str| (!value.is_empty()).then(|| format!("{key}={}", quoted(value)));
    words.extend(name("namespace", if it.namespace == "default" { "" } else { &it.namespace }));
    words.extend(name("agent", &it.agent_id));
    words.extend(name("bundle", &it.bundle_id));
    words.extend(name("run", &it.run_id));
    for (key, value) in &it.attributes {
        let told = match value.parse() {
            Ok(ms) if key.ends_with("_ms") => since_begin(ms),
            Ok(_) | Err(_) => value.clone(),
        };
        words.push(format!("{key}={}", quoted(&told)));
    }
    words.extend(name("actor", &it.actor));
    words.extend(name("reason", &it.reason));
    words.join(" ")
}

fn quoted(text: &str) -> String {
    if text.contains(' ') { format!("{text:?}") } else { text.to_owned() }
}

/// What a leader does; timers and cached views are left out, for every command has them.
fn effect(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::StepReady { step, bundle_id, attempt, rank, .. } => {
            let urgency = match rank.priority {
                3 => String::new(),
                priority => format!(", priority {priority}"),
            };
            let key = if rank.key == step.run_id { "" } else { ", key " };
            let key = if key.is_empty() { String::new() } else { format!("{key}{}", rank.key) };
            let safe = if rank.shadow { ", shadow-safe" } else { "" };
            format!(
                "{} waits for a worker of {bundle_id}{safe}, attempt {attempt}{urgency}{key}",
                id(step)
            )
        }
        Effect::StepWithdrawn { step, .. } => format!("{} waits no longer", id(step)),
        Effect::Leased { step, worker_id, bundle_id, .. } => {
            format!("{} goes to {worker_id} of {bundle_id}", id(step))
        }
        Effect::LeaseEnded { step, worker_id, .. } => {
            format!("lease of {} by {worker_id} is over", id(step))
        }
        Effect::CancelRequested { step, worker_id, reason, grace_ms, .. } => format!(
            "tell {worker_id} to stop {} within {}, {}",
            id(step),
            span(*grace_ms),
            word(reason.as_str_name(), "END_REASON_")
        ),
        Effect::RunClosed { run_id, .. } => format!("{run_id} is over"),
        Effect::DeadlineSet { .. } | Effect::AgentChanged { .. } => return None,
    })
}

fn id(step: &StepId) -> String {
    format!("{}/{}", step.run_id, step.step)
}

pub(super) fn run_state(state: v1::RunState) -> String {
    word(state.as_str_name(), "RUN_STATE_")
}

pub(super) fn bundle_state(state: v1::BundleState) -> String {
    word(state.as_str_name(), "BUNDLE_STATE_")
}

/// An enum's value without its prefix.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

fn again(already: bool) -> &'static str {
    if already { " (already)" } else { "" }
}

pub(super) fn at(timestamp: Option<&prost_types::Timestamp>) -> String {
    match timestamp_millis(timestamp) {
        0 => "never".to_owned(),
        ms => since_begin(ms),
    }
}

fn since_begin(ms: u64) -> String {
    match ms.checked_sub(BEGIN_MS) {
        Some(ms) => format!("+{}", span(ms)),
        None => format!("-{}", span(BEGIN_MS - ms)),
    }
}

/// `1h30m`, `500ms`, `0s`.
pub(super) fn span(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut told = String::new();
    let mut rest = ms;
    for (unit, size) in units {
        if rest >= size {
            told.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if told.is_empty() { "0s".to_owned() } else { told }
}

pub(super) fn session(it: &v1::Session) -> String {
    let holds = if it.holds { "" } else { ", over" };
    format!(
        "session {}: {} until {}{holds}, open: {}",
        it.session,
        it.bundle_id,
        at(it.ends_at.as_ref()),
        it.open_run_ids.join(" ")
    )
}

pub(super) fn branch(it: &v1::Branch) -> String {
    let how = match (&it.output, &it.failure) {
        (_, Some(failure)) => format!("failed with {}", failure.reason),
        (output, None) => {
            let data = output.clone().unwrap_or_default().data;
            format!("{:?}", String::from_utf8_lossy(&data))
        }
    };
    format!("branch {}: {how}", it.index)
}

pub(super) fn step_row(it: &v1::Step) -> String {
    let of =
        if it.join == 0 { String::new() } else { format!(", branch {} of {}", it.branch, it.join) };
    let joins = if it.branches == 0 {
        String::new()
    } else {
        format!(", joins {}, {} open", it.branches, it.branches_open)
    };
    let output = it.output.as_ref().map_or_else(String::new, |output| {
        format!(", answered {:?}", String::from_utf8_lossy(&output.data))
    });
    let progress = it.progress.as_ref().map_or_else(String::new, |progress| {
        format!(", came to {:?}", String::from_utf8_lossy(&progress.data))
    });
    let state = word(it.state().as_str_name(), "STEP_STATE_");
    format!("{} {} is {state}{of}{joins}{output}{progress}", it.number, it.name)
}

pub(super) fn hook(it: &v1::HookStatus) -> String {
    let hook = it.hook.clone().unwrap_or_default();
    let error =
        if it.error.is_empty() { String::new() } else { format!(", last error {:?}", it.error) };
    format!(
        "{} asks for {}, is at {}: {} pending, {} delivered, {} dead{error}",
        hook.name,
        hook.events.join(" "),
        it.cursor,
        it.pending,
        it.delivered,
        it.dead
    )
}

pub(super) fn delivery(it: &v1::Delivery) -> String {
    let state = word(it.state().as_str_name(), "DELIVERY_STATE_");
    let next = match &it.next_at {
        None => String::new(),
        some => format!(", again at {}", at(some.as_ref())),
    };
    let error = if it.error.is_empty() { String::new() } else { format!(", {:?}", it.error) };
    format!(
        "{} {} is {state} after {} attempts, status {}{error}{next}",
        it.delivery_id, it.r#type, it.attempts, it.status
    )
}

pub(super) fn audit(it: &v1::AuditEntry) -> Vec<String> {
    let mut words = vec![format!("{} @{} {}", it.sequence, it.revision, it.action)];
    let name =
        |key: &str, value: &str| (!value.is_empty()).then(|| format!("{key}={}", quoted(value)));
    words.extend(name("namespace", if it.namespace == "default" { "" } else { &it.namespace }));
    words.extend(name("agent", &it.agent_id));
    words.extend(name("bundle", &it.bundle_id));
    words.extend(name("run", &it.run_id));
    words.extend(it.details.iter().filter_map(|(key, value)| name(key, value)));
    words.extend(name("actor", &it.actor));
    words.extend(name("reason", &it.reason));
    let mut lines = vec![words.join(" ")];
    let facts = |facts: &std::collections::BTreeMap<String, String>| {
        let fact = |(key, value): (&String, &String)| match value.parse() {
            Ok(ms) if key.ends_with("_ms") => format!("{key}={}", since_begin(ms)),
            Ok(_) | Err(_) => {
                format!("{key}={}", quoted(&value.chars().take(24).collect::<String>()))
            }
        };
        facts.iter().map(fact).collect::<Vec<_>>().join(" ")
    };
    if !it.before.is_empty() {
        lines.push(format!("  before: {}", facts(&it.before)));
    }
    if !it.after.is_empty() {
        lines.push(format!("  after:  {}", facts(&it.after)));
    }
    if it.policy_before.is_some() || it.policy_after.is_some() {
        let has = |policy: &Option<v1::Policy>| if policy.is_some() { "a policy" } else { "none" };
        let (before, after) = (has(&it.policy_before), has(&it.policy_after));
        lines.push(format!("  policy: {before} before, {after} after"));
    }
    lines
}
