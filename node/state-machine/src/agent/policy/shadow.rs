//! `[gates.shadow]`: how much is mirrored and how pairs are compared.

use pinrail_proto::policy::grammar;
use pinrail_proto::policy::range::{
    PERMILLE, SHADOW_COST_MICROS, SHADOW_OPEN, SHADOW_PAIRS, SHARE_BP,
};
use pinrail_proto::{limits, v1};

use super::range::{count, invalid, name, number, permille, quoted, word};
use crate::outcome::Stop;

pub(super) fn check(shadow: &v1::ShadowGate) -> Result<(), Stop> {
    share(&shadow.share_bp)?;
    let insufficient = shadow.on_insufficient;
    word::<v1::OnInsufficient>("gates.shadow.on_insufficient", insufficient, "hold, pass")?;
    number("gates.shadow.max_open", shadow.max_open, SHADOW_OPEN)?;
    number("gates.shadow.max_cost (micro-units)", shadow.max_cost_micros, SHADOW_COST_MICROS)?;
    number("gates.shadow.min_pairs", shadow.min_pairs, SHADOW_PAIRS)?;
    permille("gates.shadow.max_divergence", shadow.max_divergence_permille, PERMILLE)?;
    permille("gates.shadow.tolerance", shadow.tolerance_permille, PERMILLE)?;
    word::<v1::Compare>("gates.shadow.compare", shadow.compare, "exact, json, trajectory, judge")?;
    judge(shadow)?;
    ignored(&shadow.ignore)
}

/// From, and raised up to.
fn share(share: &[u32]) -> Result<(), Stop> {
    let key = "gates.shadow.share (basis points)";
    for bp in share {
        number(key, Some(*bp), SHARE_BP)?;
    }
    match share {
        [from, to] if from <= to => Ok(()),
        _ => Err(invalid(key, format!("{share:?}"), "two shares: from, and raised up to")),
    }
}

fn judge(shadow: &v1::ShadowGate) -> Result<(), Stop> {
    let key = "gates.shadow.judge_step";
    match (shadow.compare(), shadow.judge_step.as_str()) {
        (v1::Compare::Judge, "") => Err(invalid(key, "empty", "the step that judges a pair")),
        (_, "") => Ok(()),
        (_, step) => name(key, step),
    }
}

fn ignored(pointers: &[String]) -> Result<(), Stop> {
    let key = "gates.shadow.ignore";
    count(key, pointers.len(), limits::SHADOW_IGNORED)?;
    match pointers.iter().find(|pointer| !grammar::is_pointer(pointer)) {
        None => Ok(()),
        Some(wrong) => Err(invalid(key, quoted(wrong), "JSON pointers such as /answer/id")),
    }
}
