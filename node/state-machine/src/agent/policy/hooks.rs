//! `[[hooks]]`: where events are sent to, and which stages ask first.

use pinrail_proto::policy::{grammar, stage};
use pinrail_proto::{limits, v1};

use super::range::{count, invalid, name, one_of, quoted};
use crate::outcome::Stop;

pub(super) fn check(hooks: &[v1::Hook]) -> Result<(), Stop> {
    count("hooks", hooks.len(), limits::HOOKS)?;
    for (at, hook) in hooks.iter().enumerate() {
        let key = format!("hooks[{at}]");
        check_hook(&key, hook)?;
        if hooks[..at].iter().any(|before| before.name == hook.name) {
            return Err(invalid(&format!("{key}.name"), quoted(&hook.name), "each name once"));
        }
    }
    Ok(())
}

fn check_hook(key: &str, hook: &v1::Hook) -> Result<(), Stop> {
    name(&format!("{key}.name"), &hook.name)?;
    if !grammar::is_url(&hook.url) {
        let rule = "http:// or https:// and a host, without a password, at most 1024 bytes";
        return Err(invalid(&format!("{key}.url"), quoted(&hook.url), rule));
    }
    let events = format!("{key}.events");
    count(&events, hook.events.len(), limits::HOOK_EVENTS)?;
    if let Some(wrong) = hook.events.iter().find(|pattern| !grammar::is_event_pattern(pattern)) {
        let rule = "types of events such as run.expired, signal.* or *";
        return Err(invalid(&events, quoted(wrong), rule));
    }
    if !hook.secret.is_empty() && !grammar::is_variable(&hook.secret) {
        // What stands here instead may be the secret itself.
        return Err(invalid(&format!("{key}.secret"), "something else", "env:NAME, or empty"));
    }
    if hook.gate.is_empty() {
        return Ok(());
    }
    one_of(&format!("{key}.gate"), &hook.gate, &stage::GATED)
}
