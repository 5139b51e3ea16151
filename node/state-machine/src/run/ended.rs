//! Steps of a trunk that have ended. From feature level 11 on they stay in their run's row while they are small, so that a step
//! writes one row and not two; what becomes too much for that goes to rows of their own, all at once.

use bytes::Bytes;
use pinrail_proto::encode;
use pinrail_proto::log::{EndedStep, RunRecord, StepRecord};

use crate::step;
use crate::store::Fault;
use crate::txn::{Txn, decode};

/// Bytes of ended steps in a run's row, which is written with each step: ten with inputs of a quarter of a KiB.
const BYTES: usize = 4 << 10;

/// Puts a step of the trunk that has ended into its run, whose row the command writes behind that; or into a row of its own.
pub(crate) fn put_ended(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord, step: &StepRecord) {
    let key = step::key(agent, &run.run_id, step.number);
    if !run.holds_ended || step.number <= run.ended_to {
        return txn.put(key, step);
    }
    // What is known of it is how it was while it was open.
    txn.forget(key);
    let ended = EndedStep { number: step.number, record: Bytes::from(encode(step)) };
    match run.ended.iter_mut().find(|before| before.number == step.number) {
        Some(before) => *before = ended,
        None => run.ended.push(ended),
    }
    if run.ended.iter().map(|ended| ended.record.len()).sum::<usize>() > BYTES {
        for EndedStep { number, record } in std::mem::take(&mut run.ended) {
            txn.put_encoded(step::key(agent, &run.run_id, number), record);
        }
        run.ended_to = step.number;
    }
}

/// A step that has ended, if it lies in its run's row.
pub(super) fn ended(run: &RunRecord, number: u32) -> Result<Option<StepRecord>, Fault> {
    let of_number = run.ended.iter().find(|ended| ended.number == number);
    of_number.map(|ended| decode(run.run_id.as_bytes(), &ended.record)).transpose()
}

/// Forgets the steps in the row of a run that begins anew, or is deleted.
pub(super) fn forget_ended(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord) {
    for ended in std::mem::take(&mut run.ended) {
        txn.forget(step::key(agent, &run.run_id, ended.number));
    }
    run.ended_to = 0;
}
