//! `[gates.smoke]`: its cases.

use pinrail_proto::policy::range;
use pinrail_proto::{limits, v1};

use super::range::{count, invalid, name, quoted, span, text};
use crate::outcome::Stop;

pub(super) fn check(smoke: &v1::SmokeGate) -> Result<(), Stop> {
    count("gates.smoke.cases", smoke.cases.len(), limits::SMOKE_CASES)?;
    for (at, case) in smoke.cases.iter().enumerate() {
        let key = format!("gates.smoke.cases[{at}]");
        check_case(&key, case)?;
        if smoke.cases[..at].iter().any(|before| before.name == case.name) {
            return Err(invalid(&format!("{key}.name"), quoted(&case.name), "each name once"));
        }
    }
    Ok(())
}

fn check_case(key: &str, case: &v1::SmokeCase) -> Result<(), Stop> {
    name(&format!("{key}.name"), &case.name)?;
    if !case.entry.is_empty() {
        name(&format!("{key}.entry"), &case.entry)?;
    }
    span(&format!("{key}.within"), case.within.as_ref(), range::SMOKE_WITHIN)?;
    text(&format!("{key}.expect.schema"), &case.schema, limits::SMOKE_SCHEMA_BYTES)?;
    text(&format!("{key}.expect.matches"), &case.matches, limits::TEXT_BYTES)?;
    let contains = format!("{key}.expect.contains");
    count(&contains, case.contains.len(), limits::SMOKE_CONTAINS)?;
    for part in &case.contains {
        if part.is_empty() {
            return Err(invalid(&contains, "\"\"", "texts that are not empty"));
        }
        text(&contains, part, limits::TEXT_BYTES)?;
    }
    Ok(())
}
