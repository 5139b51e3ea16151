//! Costs: what is reported is added up for bundle, kind of run, step and model at once, and stays when the run is
//! forgotten.

use pinrail_proto::limits;
use pinrail_proto::log::CostRecord;
use pinrail_proto::v1::{ModelUsage, RunKind, Usage};

use crate::key::{Key, Kind, RowKey};
use crate::outcome::Stop;
use crate::store::Fault;
use crate::txn::Txn;

use super::Subject;

/// Adds a report, clipped to its limits, to the costs of the run's bundle. The caller saves the agent.
pub(super) fn book(txn: &mut Txn<'_>, subject: &mut Subject, report: &Usage) -> Result<(), Stop> {
    for model in &report.models {
        let step = subject.step.as_ref().map_or("", |step| step.name.as_str());
        let key = key(subject, step, &name(&model.model), &name(&model.served_model));
        let found: Option<CostRecord> = txn.get(&key)?;
        let (key, mut sum) = match found {
            Some(sum) => (key, sum),
            None if subject.agent.cost_rows < limits::COST_ROWS => {
                subject.agent.cost_rows += 1;
                (key, CostRecord::default())
            }
            None => rest(txn, subject)?,
        };
        add(&mut sum, model);
        txn.put(key, &sum);
    }
    Ok(())
}

/// Where is booked what has no row of its own: at most one row for each bundle and kind.
fn rest(txn: &Txn<'_>, subject: &mut Subject) -> Result<(RowKey, CostRecord), Fault> {
    let key = key(subject, "", "", "");
    let found: Option<CostRecord> = txn.get(&key)?;
    if found.is_none() {
        subject.agent.cost_rows += 1;
    }
    Ok((key, found.unwrap_or_default()))
}

fn key(subject: &Subject, step: &str, model: &str, served: &str) -> RowKey {
    prefix(subject.agent.number, &subject.run.bundle_id, subject.run.kind())
        .text(step)
        .text(model)
        .last(served)
}

/// What the costs of a bundle's runs of one kind have in common.
fn prefix(agent: u32, bundle_id: &str, kind: RunKind) -> Key {
    let number = u8::try_from(i32::from(kind)).unwrap_or(0);
    Key::of(Kind::Cost, agent).text(bundle_id).u8(number)
}

/// Workers may send any text; a key is built of text without zero bytes.
fn name(reported: &str) -> String {
    reported.replace('\0', "?")
}

fn add(sum: &mut CostRecord, report: &ModelUsage) {
    sum.input_tokens = sum.input_tokens.saturating_add(report.input_tokens);
    sum.output_tokens = sum.output_tokens.saturating_add(report.output_tokens);
    sum.cost_micros = sum.cost_micros.saturating_add(report.cost_micros);
    sum.calls = sum.calls.saturating_add(report.calls);
}
