//! Hooks and the audit in stories: a policy's hooks, and what can be asked.

use pinrail_proto::v1;
use pinrail_state_machine::query::{self, AuditCheck, AuditFilter};

use super::line::Line;
use super::question::{Told, agent};
use super::show;
use super::world::{BEGIN_MS, World};

/// `hook:pager=release.*,run.finished gate:legal=switch`
pub(super) fn hooks_policy(line: &mut Line) -> Vec<v1::Hook> {
    let hook = |name: String| v1::Hook {
        url: format!("https://{name}.example"),
        name,
        secret: "env:HOOK_SECRET".to_owned(),
        ..v1::Hook::default()
    };
    let told = line.all("hook:").into_iter().map(|(name, events)| v1::Hook {
        events: events.split(',').map(str::to_owned).collect(),
        ..hook(name)
    });
    let told: Vec<v1::Hook> = told.collect();
    let gates = line.all("gate:").into_iter().map(|(name, gate)| v1::Hook { gate, ..hook(name) });
    told.into_iter().chain(gates).collect()
}

pub(super) fn hooks(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    Ok(query::hooks(world.read(), &namespace, &agent)?.iter().map(show::hook).collect())
}

/// `deliveries support pager [dead]`
pub(super) fn deliveries(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let hook = line.word();
    let state = format!("DELIVERY_STATE_{}", line.word_or_none().to_uppercase());
    let state = v1::DeliveryState::from_str_name(&state).unwrap_or_default();
    let found = query::hook_deliveries(world.read(), &namespace, &agent, &hook, state, 0, "")?;
    Ok(found.0.iter().map(show::delivery).collect())
}

/// What a hook would be sent behind a revision: `sent support pager after=3`.
pub(super) fn sent(world: &World, line: &mut Line) -> Told {
    let (namespace, agent) = agent(line);
    let hook = query::hook(world.read(), &namespace, &agent, &line.word())?.hook;
    let hook = hook.unwrap_or_default();
    let (heads, upto) = query::event_heads(world.read(), line.number("after").unwrap_or(0), 1_000)?;
    let mut lines = Vec::new();
    for head in heads.iter().filter(|head| head.is_for(&hook)) {
        let (event, data) = query::event_at(world.read(), head.place)?.unwrap();
        let data = data.map_or_else(String::new, |data| {
            let text = String::from_utf8_lossy(&data.data).into_owned();
            if text.len() > 40 { format!(", {} bytes", text.len()) } else { format!(", {text:?}") }
        });
        let (revision, index) = (head.place.revision, head.place.index);
        lines.push(format!("{revision}/{index} {}{data}", show::event(&event)));
    }
    lines.push(format!("all up to {upto}"));
    Ok(lines)
}

pub(super) fn audit(world: &World, line: &mut Line) -> Told {
    let filter = AuditFilter {
        agent_id: line.text("agent"),
        actor: line.text("actor"),
        action: line.text("action"),
        since_ms: line.span("since").map_or(0, |ms| BEGIN_MS + ms),
        ..AuditFilter::default()
    };
    let size = u32::try_from(line.number("limit").unwrap_or(0)).unwrap();
    let (mut entries, next) = query::audit(world.read(), &filter, size, "")?;
    if !next.is_empty() {
        entries.extend(query::audit(world.read(), &filter, 0, &next)?.0);
    }
    Ok(entries.iter().flat_map(show::audit).collect())
}

pub(super) fn verify_audit(world: &World) -> Told {
    let it = query::verify_audit(world.read(), &AuditCheck::default())?;
    let (first, last) = (it.first_sequence, it.last_sequence);
    Ok(vec![match it.broken_sequence {
        None => format!("{} entries from {first} to {last} are as they were made", it.checked),
        Some(broken) => format!("entry {broken}: {}", it.problem),
    }])
}
