//! What a run used: summed up by model and by tool, for the step, the run and the bundle.

use pinrail_proto::log::{BundleRecord, EffectCount};
use pinrail_proto::v1::{ModelUsage, SideEffects, ToolUsage, Usage};

use crate::drift;
use crate::outcome::Stop;
use crate::txn::Txn;

use super::{Subject, clip, cost};

/// Different models or tools that one sum tells apart; what comes beyond is dropped.
const DISTINCT: usize = 64;

/// Adds a report to the run, its open step, the costs and the effects of its bundle. The caller saves the subject.
pub(crate) fn add(txn: &mut Txn<'_>, subject: &mut Subject, report: &Usage) -> Result<(), Stop> {
    let report = &clip::usage(report);
    cost::book(txn, subject, report)?;
    drift::compare(txn, subject, report)?;
    sum(subject.run.usage.get_or_insert_default(), report);
    if let Some(step) = &mut subject.step {
        sum(step.usage.get_or_insert_default(), report);
    }
    for tool in &report.tools {
        let class = class(&tool.side_effects);
        // A tool that does not say what it does may have done anything.
        if class != SideEffects::ReadOnly {
            count_effect(&mut subject.bundle, tool, class);
        }
        if class == SideEffects::Destructive {
            subject.run.destructive = true;
        }
    }
    Ok(())
}

fn class(word: &str) -> SideEffects {
    match word {
        "read_only" => SideEffects::ReadOnly,
        "idempotent" => SideEffects::Idempotent,
        "destructive" => SideEffects::Destructive,
        _ => SideEffects::Unspecified,
    }
}

fn count_effect(bundle: &mut BundleRecord, tool: &ToolUsage, class: SideEffects) {
    let room = bundle.effects.len() < DISTINCT;
    match bundle.effects.iter_mut().find(|e| e.tool == tool.tool && e.class() == class) {
        Some(effect) => effect.calls = effect.calls.saturating_add(tool.calls),
        None if room => bundle.effects.push(EffectCount {
            tool: tool.tool.clone(),
            class: class.into(),
            calls: tool.calls,
        }),
        None => {}
    }
}

fn sum(total: &mut Usage, report: &Usage) {
    for model in &report.models {
        add_model(&mut total.models, model);
    }
    for tool in &report.tools {
        add_tool(&mut total.tools, tool);
    }
}

fn add_model(models: &mut Vec<ModelUsage>, report: &ModelUsage) {
    let same =
        |m: &&mut ModelUsage| m.model == report.model && m.served_model == report.served_model;
    let room = models.len() < DISTINCT;
    match models.iter_mut().find(same) {
        Some(model) => {
            model.input_tokens = model.input_tokens.saturating_add(report.input_tokens);
            model.output_tokens = model.output_tokens.saturating_add(report.output_tokens);
            model.cost_micros = model.cost_micros.saturating_add(report.cost_micros);
            model.calls = model.calls.saturating_add(report.calls);
        }
        None if room => models.push(report.clone()),
        None => {}
    }
}

fn add_tool(tools: &mut Vec<ToolUsage>, report: &ToolUsage) {
    let same =
        |t: &&mut ToolUsage| t.tool == report.tool && t.schema_digest == report.schema_digest;
    let room = tools.len() < DISTINCT;
    match tools.iter_mut().find(same) {
        Some(tool) => {
            tool.calls = tool.calls.saturating_add(report.calls);
            tool.schema_violations =
                tool.schema_violations.saturating_add(report.schema_violations);
            tool.checked = tool.checked.saturating_add(report.checked);
            // The first one stays.
            if tool.violation.is_empty() {
                tool.violation_path.clone_from(&report.violation_path);
                tool.violation.clone_from(&report.violation);
            }
        }
        None if room => tools.push(report.clone()),
        None => {}
    }
}
