//! `[gates.shadow]`.

use pinrail_proto::policy::grammar::is_pointer;
use pinrail_proto::policy::range::{
    PERMILLE, SHADOW_COST_MICROS, SHADOW_OPEN, SHADOW_PAIRS, SHARE_BP,
};
use pinrail_proto::{id, limits, v1};

use super::super::FileError;
use super::super::reader::Reader;
use super::gates;

pub(super) fn read(table: &mut Reader<'_>) -> Result<v1::ShadowGate, FileError> {
    let insufficient = [("hold", v1::OnInsufficient::Hold), ("pass", v1::OnInsufficient::Pass)];
    let compare = [
        ("exact", v1::Compare::Exact),
        ("json", v1::Compare::Json),
        ("trajectory", v1::Compare::Trajectory),
        ("judge", v1::Compare::Judge),
    ];
    let shadow = v1::ShadowGate {
        mode: gates::mode(table)?,
        timeout: gates::timeout(table)?,
        share_bp: share(table)?,
        on_insufficient: table.word("on_insufficient", &insufficient)?.map_or(0, Into::into),
        max_open: table.small("max_open", SHADOW_OPEN)?,
        max_cost_micros: table.money("max_cost", SHADOW_COST_MICROS)?,
        min_pairs: table.small("min_pairs", SHADOW_PAIRS)?,
        max_divergence_permille: table.permille("max_divergence", PERMILLE)?,
        compare: table.word("compare", &compare)?.map_or(0, Into::into),
        tolerance_permille: table.permille("tolerance", PERMILLE)?,
        ignore: ignore(table)?,
        judge_step: judge_step(table)?,
    };
    if shadow.compare() == v1::Compare::Judge && shadow.judge_step.is_empty() {
        let rule = format!("{}: is missing: the step that judges a pair", table.key("judge_step"));
        return Err(table.error(table.line(), rule));
    }
    Ok(shadow)
}

/// From, and raised up to; one alone is never raised.
fn share(table: &mut Reader<'_>) -> Result<Vec<u32>, FileError> {
    let line = table.line_of("share");
    let Some(texts) = table.texts("share")? else { return Ok(Vec::new()) };
    let share = |(text, line): &(String, usize)| table.share_of("share", text, *line, SHARE_BP);
    let shares = texts.iter().map(share).collect::<Result<Vec<_>, _>>()?;
    match shares[..] {
        [_] => Ok(shares),
        [from, to] if from <= to => Ok(shares),
        _ => {
            let rule = "one share, or two: from, and raised up to, e.g. [\"10%\", \"100%\"]";
            Err(table.error(line, format!("{}: {rule}", table.key("share"))))
        }
    }
}

fn ignore(table: &mut Reader<'_>) -> Result<Vec<String>, FileError> {
    let mut pointers = Vec::new();
    for (text, line) in table.texts("ignore")?.unwrap_or_default() {
        if !is_pointer(&text) {
            let key = table.key("ignore");
            let rule = format!("{key}: {text:?} is no JSON pointer such as /answer/id");
            return Err(table.error(line, rule));
        }
        if pointers.len() == limits::SHADOW_IGNORED {
            let rule = format!("{}: at most {}", table.key("ignore"), limits::SHADOW_IGNORED);
            return Err(table.error(line, rule));
        }
        pointers.push(text);
    }
    Ok(pointers)
}

fn judge_step(table: &mut Reader<'_>) -> Result<String, FileError> {
    let Some((step, line)) = table.text("judge_step")? else { return Ok(String::new()) };
    if !step.is_empty() {
        id::check_name("step", &step)
            .map_err(|error| table.error(line, format!("{}: {error}", table.key("judge_step"))))?;
    }
    Ok(step)
}
