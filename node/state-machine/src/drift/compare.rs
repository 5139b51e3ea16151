//! What runs report of replies and models, compared with what their bundle says.

use pinrail_proto::log::DriftRecord;
use pinrail_proto::v1::{DriftChange, DriftClass, DriftSource, ModelUsage, ToolUsage, Usage};

use crate::bundle;
use crate::outcome::Stop;
use crate::run::Subject;
use crate::txn::Txn;

use super::place::Place;
use super::row::see;
use super::served;

/// Notes what of a report, clipped to its limits, is not what the bundle says. The caller saves the subject.
pub(crate) fn compare(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    report: &Usage,
) -> Result<(), Stop> {
    if subject.run.bundle_id.is_empty() {
        return Ok(());
    }
    for tool in &report.tools {
        if tool.checked > 0 {
            subject.bundle.drift.get_or_insert_default().compared = true;
        }
        if tool.schema_violations > 0 {
            broken_replies(txn, subject, tool)?;
        }
    }
    if report.models.iter().all(|model| model.served_model.is_empty()) {
        return Ok(());
    }
    let models = bundle::models(txn.read(), subject.agent.number, &subject.run.bundle_id)?;
    for model in report.models.iter().filter(|model| !model.served_model.is_empty()) {
        subject.bundle.drift.get_or_insert_default().compared = true;
        if let Some(expected) = served::differs(&models, &model.model, &model.served_model) {
            other_model(txn, subject, model, expected)?;
        }
    }
    Ok(())
}

fn broken_replies(txn: &mut Txn<'_>, subject: &mut Subject, tool: &ToolUsage) -> Result<(), Stop> {
    let change = DriftChange {
        path: tool.violation_path.clone(),
        class: DriftClass::Breaking.into(),
        what: tool.violation.clone(),
    };
    let sighting = DriftRecord {
        expected: tool.schema_digest.clone(),
        changes: vec![change],
        count: tool.schema_violations,
        ..sighting(subject)
    };
    note(txn, subject, (DriftSource::Response, &tool.tool, ""), sighting)
}

fn other_model(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    model: &ModelUsage,
    expected: String,
) -> Result<(), Stop> {
    let change = DriftChange {
        path: String::new(),
        class: DriftClass::Breaking.into(),
        what: format!("{} served in place of {expected}", model.served_model),
    };
    let changes = vec![change];
    let sighting =
        DriftRecord { expected, changes, count: model.calls.max(1), ..sighting(subject) };
    let name = if model.model.is_empty() { served::DEFAULT } else { model.model.as_str() };
    note(txn, subject, (DriftSource::Model, name, &model.served_model), sighting)
}

fn sighting(subject: &Subject) -> DriftRecord {
    DriftRecord {
        class: DriftClass::Breaking.into(),
        run_id: subject.run.run_id.clone(),
        ..DriftRecord::default()
    }
}

/// A bundle with as many rows as it may have loses what is new: a report must not fail for it.
fn note(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    (source, name, seen): (DriftSource, &str, &str),
    sighting: DriftRecord,
) -> Result<(), Stop> {
    // Workers may send any text; a key is built of text without zero bytes.
    let [name, seen] = [name, seen].map(|text| text.replace('\0', "?"));
    let (agent, bundle_id) = (subject.agent.number, subject.run.bundle_id.clone());
    let place = Place { agent, bundle_id, source, name, seen };
    see(txn, &subject.agent, &mut subject.bundle, &place, sighting)?;
    Ok(())
}
