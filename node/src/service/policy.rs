//! What a policy says that must be compiled to be judged: expressions and schemas of smoke cases, the zone of the drill's
//! window. It is judged here, before anything is proposed, since apply knows none of these engines.

use pinrail_proto::policy::window::Window;
use pinrail_proto::{limits, reason, v1};
use tonic::Status;

use super::error::refuse;
use crate::assertion;
use crate::driver::drill::window::knows;

/// # Errors
/// `INVALID_POLICY` names the key and what is wrong.
pub(super) fn check(policy: Option<&v1::Policy>) -> Result<(), Status> {
    let Some(policy) = policy else { return Ok(()) };
    let smoke = policy.gates.as_ref().and_then(|gates| gates.smoke.as_ref());
    let cases = smoke.map_or(&[][..], |smoke| smoke.cases.as_slice());
    // What is over its limit is refused at apply, and not worth compiling.
    for (at, case) in cases.iter().enumerate().take(limits::SMOKE_CASES) {
        let wrong = |key: &str, rule: String| {
            let key = format!("gates.smoke.cases[{at}].expect.{key}");
            refuse(reason::INVALID_POLICY, format!("{key} of {:?} {rule}", case.name))
        };
        if (1..=limits::SMOKE_SCHEMA_BYTES).contains(&case.schema.len()) {
            assertion::schema(&case.schema).map_err(|rule| wrong("schema", rule))?;
        }
        if (1..=limits::TEXT_BYTES).contains(&case.matches.len()) {
            assertion::expression(&case.matches).map_err(|rule| wrong("matches", rule))?;
        }
    }
    let window = policy.drill.as_ref().map_or("", |drill| drill.window.as_str());
    // What breaks its grammar is refused at apply, with every other range.
    if let Ok(window) = Window::parse(window)
        && !knows(&window.zone)
    {
        let message = format!("drill.window: {:?} is no zone of the tz database", window.zone);
        return Err(refuse(reason::INVALID_POLICY, message));
    }
    Ok(())
}
