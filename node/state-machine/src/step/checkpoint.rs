//! Checkpoints: memoised results inside a step, fenced by the lease, kept for the next attempt.

use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{CheckpointRecord, RecordCheckpoint, StepResult};
use pinrail_proto::v1::Usage;
use pinrail_proto::{id, limits, reason};

use crate::agent::policy::too_large;
use crate::key::{Key, Kind};
use crate::level;
use crate::outcome::{Stop, reject};
use crate::run::{Subject, add_usage};
use crate::txn::Txn;

use super::held;

pub(crate) fn checkpoint(txn: &mut Txn<'_>, it: &RecordCheckpoint) -> Result<Answer, Stop> {
    id::check_token("checkpoint name", &it.name)
        .map_err(|error| reject(reason::INVALID_ID, error.to_string()))?;
    let value = it.value.clone().unwrap_or_default();
    if value.data.len() > limits::PAYLOAD_BYTES {
        return Err(too_large("checkpoint bytes", value.data.len(), limits::PAYLOAD_BYTES));
    }
    let mut subject = held(txn, it.step.as_ref(), it.token.as_ref())?;
    let number = subject.step.as_ref().map_or(0, |step| step.number);
    let row = Key::of(Kind::Checkpoint, subject.agent.number)
        .text(&subject.run.run_id)
        .u32(number)
        .last(&it.name);
    let answer = Answer::Step(StepResult { step: number, ..StepResult::default() });
    if let Some(recorded) = txn.get::<CheckpointRecord>(&row)? {
        if recorded.value.as_ref() == Some(&value) {
            return Ok(answer);
        }
        let message = format!("checkpoint {:?} is recorded with another value", it.name);
        return Err(reject(reason::CHECKPOINT_MISMATCH, message));
    }
    let stored = subject.run.stored_bytes + value.data.len() as u64;
    if stored > limits::RUN_STORED_BYTES {
        let message = format!("the run would store {stored} bytes");
        return Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::RUN_STORED_BYTES));
    }
    let Some(step) = &mut subject.step else { return Ok(answer) };
    if step.checkpoints >= limits::STEP_CHECKPOINTS {
        let message = format!("the step has {} checkpoints", step.checkpoints);
        return Err(reject(reason::LIMIT_EXCEEDED, message).with("limit", limits::STEP_CHECKPOINTS));
    }
    step.checkpoints += 1;
    // The worker's count of what the step asked for: a place stays empty when making it failed and the step went on.
    let record = CheckpointRecord { order: it.order, value: Some(value) };
    subject.run.stored_bytes = stored;
    txn.put(row, &record);
    add_usage_so_far(txn, &mut subject, it.usage.as_ref())?;
    subject.save(txn)?;
    Ok(answer)
}

/// Adds what an attempt that goes on, or that another one takes over, has used: a tool with side effects that was called has been
/// called, whatever becomes of the attempt.
pub(super) fn add_usage_so_far(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    usage: Option<&Usage>,
) -> Result<(), Stop> {
    match usage {
        Some(usage) if txn.cluster.feature_level >= level::USAGE_COMES_AT_ONCE => {
            add_usage(txn, subject, usage)
        }
        Some(_) | None => Ok(()),
    }
}
