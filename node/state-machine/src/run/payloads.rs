//! What a run was given and what it came to: from feature level 12 on in the run's row where it is small, else in a row of its own.

use bytes::Bytes;
use pinrail_proto::log::RunRecord;
use pinrail_proto::v1::Payload;

use crate::key::{Key, Kind, RowKey};
use crate::level;
use crate::store::{Fault, Read};
use crate::txn::{Txn, get};

/// The largest one in a run's row, in bytes: the row is written with each step.
const BYTES: usize = 512;

pub(super) fn put_input(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord, input: &Payload) {
    if fits(txn, input) {
        // The run is kept while it is open, and must not keep the log entry that this is a part of.
        let data = Bytes::copy_from_slice(&input.data);
        run.input = Some(Payload { content_type: input.content_type.clone(), data });
    } else {
        txn.put(input_key(agent, &run.run_id), input);
    }
}

pub(crate) fn put_output(txn: &mut Txn<'_>, agent: u32, run: &mut RunRecord, output: &Payload) {
    if fits(txn, output) {
        run.output = Some(output.clone());
    } else {
        txn.put(output_key(agent, &run.run_id), output);
    }
}

fn fits(txn: &Txn<'_>, payload: &Payload) -> bool {
    let bytes = payload.data.len() + payload.content_type.len();
    txn.cluster.feature_level >= level::RUNS_HOLD_PAYLOADS && bytes <= BYTES
}

pub(crate) fn input(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
) -> Result<Option<Payload>, Fault> {
    match &run.input {
        Some(input) => Ok(Some(input.clone())),
        None => get(read, &input_key(agent, &run.run_id)),
    }
}

/// None before the run has completed.
pub(crate) fn output(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
) -> Result<Option<Payload>, Fault> {
    match &run.output {
        Some(output) => Ok(Some(output.clone())),
        None => get(read, &output_key(agent, &run.run_id)),
    }
}

/// Deletes the rows of their own.
pub(super) fn delete(txn: &mut Txn<'_>, agent: u32, run: &RunRecord) {
    if run.input.is_none() {
        txn.delete(input_key(agent, &run.run_id));
    }
    if run.output.is_none() {
        txn.delete(output_key(agent, &run.run_id));
    }
}

fn input_key(agent: u32, run_id: &str) -> RowKey {
    Key::of(Kind::RunInput, agent).last(run_id)
}

fn output_key(agent: u32, run_id: &str) -> RowKey {
    Key::of(Kind::RunOutput, agent).last(run_id)
}
