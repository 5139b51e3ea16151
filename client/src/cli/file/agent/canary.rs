//! `[gates.canary]`: growing shares, and who always goes to the candidate.

use std::collections::BTreeMap;

use pinrail_proto::policy::range::{CANARY_HOLD, CANARY_TIMEOUT, HOUR, SHARE_BP};
use pinrail_proto::policy::stage;
use pinrail_proto::time::millis;
use pinrail_proto::{limits, v1};

use super::super::reader::Reader;
use super::super::{FileError, value};

pub(super) fn read(table: &mut Reader<'_>) -> Result<v1::CanaryGate, FileError> {
    let modes = [
        ("auto", v1::StageMode::Auto),
        ("required", v1::StageMode::Required),
        ("optional", v1::StageMode::Optional),
        ("off", v1::StageMode::Off),
    ];
    let line = table.line_of("timeout");
    let gate = v1::CanaryGate {
        mode: table.word("mode", &modes)?.map_or(0, Into::into),
        auto_parts: auto_parts(table)?,
        steps: steps(table)?,
        include: include(table)?,
        timeout: table.duration("timeout", CANARY_TIMEOUT)?,
    };
    let of = |it: &Option<prost_types::Duration>| it.as_ref().and_then(millis);
    let held: u64 = gate.steps.iter().filter_map(|step| of(&step.hold)).sum();
    let timeout = of(&gate.timeout).unwrap_or(6 * HOUR);
    if timeout < held {
        let show = |ms| value::show_duration(std::time::Duration::from_millis(ms));
        let rule = format!(
            "{}: {} is less than the {} that its steps hold together",
            table.key("timeout"),
            show(timeout),
            show(held)
        );
        return Err(table.error(line, rule));
    }
    Ok(gate)
}

fn auto_parts(table: &mut Reader<'_>) -> Result<Vec<String>, FileError> {
    let line = table.line_of("auto_parts");
    match table.some_of("auto_parts", &stage::PARTS)? {
        Some(parts) if parts.is_empty() => {
            let rule = "names no part; mode = \"off\" is what never runs";
            Err(table.error(line, format!("{}: {rule}", table.key("auto_parts"))))
        }
        parts => Ok(parts.unwrap_or_default()),
    }
}

fn steps(table: &mut Reader<'_>) -> Result<Vec<v1::CanaryStep>, FileError> {
    let (line, is_given) = (table.line_of("steps"), table.has("steps"));
    let mut steps: Vec<v1::CanaryStep> = Vec::new();
    for mut inner in table.list("steps")? {
        let share_line = inner.line_of("share");
        let missing = |inner: &Reader<'_>, key: &str| {
            inner.error(inner.line(), format!("{}: is missing", inner.key(key)))
        };
        let share_bp = inner.share("share", SHARE_BP)?.ok_or_else(|| missing(&inner, "share"))?;
        let hold = inner.duration("hold", CANARY_HOLD)?.ok_or_else(|| missing(&inner, "hold"))?;
        if let Some(before) = steps.last().filter(|before| before.share_bp >= share_bp) {
            let before = value::show_basis_points(u64::from(before.share_bp));
            let rule = format!("{}: is not more than the {before} before", inner.key("share"));
            return Err(inner.error(share_line, rule));
        }
        inner.finish()?;
        steps.push(v1::CanaryStep { share_bp, hold: Some(hold) });
    }
    if steps.len() > limits::CANARY_STEPS || (is_given && steps.is_empty()) {
        let rule = format!("{}: 1 to {} steps", table.key("steps"), limits::CANARY_STEPS);
        return Err(table.error(line, rule));
    }
    Ok(steps)
}

fn include(table: &mut Reader<'_>) -> Result<BTreeMap<String, v1::LabelValues>, FileError> {
    let Some(mut inner) = table.table("include")? else { return Ok(BTreeMap::new()) };
    let mut include = BTreeMap::new();
    for (label, node) in inner.entries() {
        let (line, key) = (node.line, inner.key(&label));
        if label.is_empty() || label.len() > limits::LABEL_KEY_BYTES {
            return Err(inner.error(line, format!("{key}: a label has 1 to 63 bytes")));
        }
        let texts = inner.as_texts(&label, node)?;
        let values: Vec<_> = texts.into_iter().map(|(text, _)| text).collect();
        let is_long = values.iter().any(|value| value.len() > limits::LABEL_VALUE_BYTES);
        if values.len() > limits::CANARY_INCLUDED || is_long {
            let (most, bytes) = (limits::CANARY_INCLUDED, limits::LABEL_VALUE_BYTES);
            let rule = format!("{key}: at most {most} values of at most {bytes} bytes");
            return Err(inner.error(line, rule));
        }
        include.insert(label, v1::LabelValues { values });
    }
    if include.len() > limits::LABELS {
        let rule = format!("{}: {} labels; at most 64", table.key("include"), include.len());
        return Err(inner.error(inner.line(), rule));
    }
    Ok(include)
}
