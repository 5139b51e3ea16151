//! `[[hooks]]`: where events are sent to, and which stages ask first.

use pinrail_proto::policy::{grammar, stage};
use pinrail_proto::{id, limits, v1};

use super::super::FileError;
use super::super::reader::Reader;

pub(super) fn read(top: &mut Reader<'_>) -> Result<Vec<v1::Hook>, FileError> {
    let mut hooks: Vec<v1::Hook> = Vec::new();
    for mut table in top.list("hooks")? {
        let hook = hook(&mut table)?;
        if hooks.iter().any(|before| before.name == hook.name) {
            let rule = format!("{}: {} is there twice", table.key("name"), hook.name);
            return Err(table.error(table.line(), rule));
        }
        if hooks.len() == limits::HOOKS {
            let rule = format!("hooks: at most {}", limits::HOOKS);
            return Err(table.error(table.line(), rule));
        }
        table.finish()?;
        hooks.push(hook);
    }
    Ok(hooks)
}

fn hook(table: &mut Reader<'_>) -> Result<v1::Hook, FileError> {
    let (name, line) = table.required("name")?;
    id::check_name("name", &name)
        .map_err(|error| table.error(line, format!("{}: {error}", table.key("name"))))?;
    let (url, line) = table.required("url")?;
    if !grammar::is_url(&url) {
        let rule = "is no http:// or https:// address of at most 1024 bytes without a password";
        return Err(table.error(line, format!("{}: {rule}", table.key("url"))));
    }
    Ok(v1::Hook { name, url, events: events(table)?, secret: secret(table)?, gate: gate(table)? })
}

fn events(table: &mut Reader<'_>) -> Result<Vec<String>, FileError> {
    let mut events = Vec::new();
    for (text, line) in table.texts("events")?.unwrap_or_default() {
        if !grammar::is_event_pattern(&text) {
            let rule = format!("{text:?} is no type of events such as run.expired, signal.* or *");
            return Err(table.error(line, format!("{}: {rule}", table.key("events"))));
        }
        if events.len() == limits::HOOK_EVENTS {
            let rule = format!("{}: at most {}", table.key("events"), limits::HOOK_EVENTS);
            return Err(table.error(line, rule));
        }
        events.push(text);
    }
    Ok(events)
}

/// What stands there instead may be the secret itself: no error shows it.
fn secret(table: &mut Reader<'_>) -> Result<String, FileError> {
    let Some((text, line)) = table.text("secret")? else { return Ok(String::new()) };
    if !text.is_empty() && !grammar::is_variable(&text) {
        let rule = "is no env:NAME, the variable of the nodes that holds it";
        return Err(table.error(line, format!("{}: {rule}", table.key("secret"))));
    }
    Ok(text)
}

fn gate(table: &mut Reader<'_>) -> Result<String, FileError> {
    let Some((text, line)) = table.text("gate")? else { return Ok(String::new()) };
    if !text.is_empty() && !stage::GATED.contains(&text.as_str()) {
        let rule = format!("{text:?} is none of {}", stage::GATED.join(", "));
        return Err(table.error(line, format!("{}: {rule}", table.key("gate"))));
    }
    Ok(text)
}
