//! The row of a run: its record, in which steps lie that have ended (`ended.rs`), and, from feature level 9 on, that of the step
//! that its trunk is at. In memory run and open step are two records, each under the key that its own row has or would have.

use std::sync::Arc;

use bytes::Bytes;
use pinrail_proto::log::{RunRecord, StepRecord};
use prost::Message as _;
use prost::encoding::message;

use crate::key::{Key, Kind, RowKey};
use crate::level;
use crate::records::Record;
use crate::shared::Shared;
use crate::step;
use crate::store::{Fault, Read};
use crate::txn::{Txn, checked, decode};

use super::ended::ended;
use super::is_over;

/// Number of `RunRecord.open_step`.
const OPEN_STEP: u32 = 207;

/// Puts a row together.
fn join(run: &RunRecord, open: Option<&StepRecord>) -> Bytes {
    let of_open = open.map_or(0, |it| message::encoded_len(OPEN_STEP, it));
    let mut row = vec![0; run.encoded_len() + of_open];
    let mut room = row.as_mut_slice();
    run.encode_raw(&mut room);
    if let Some(open) = open {
        message::encode(OPEN_STEP, open, &mut room);
    }
    row.into()
}

/// Takes a row apart.
pub(crate) fn split(key: &[u8], row: &Bytes) -> Result<(RunRecord, Option<StepRecord>), Fault> {
    let mut run: RunRecord = decode(key, row)?;
    let open = run.open_step.take().map(|open| *open);
    Ok((run, open))
}

pub(crate) fn find(
    read: &dyn Read,
    agent: u32,
    run_id: &str,
) -> Result<Option<Shared<RunRecord>>, Fault> {
    let key = key(agent, run_id);
    if let Some(run) = checked(read.kept(&key), || of_row(read, &key))? {
        return Ok(Some(run));
    }
    let Some(run) = read_row(read, agent, &key)? else { return Ok(None) };
    read.keep(&key, run.arc() as Record);
    Ok(Some(run))
}

/// As [`find`], to be changed and saved.
pub(super) fn take(
    txn: &Txn<'_>,
    agent: u32,
    run_id: &str,
) -> Result<Option<Shared<RunRecord>>, Fault> {
    let key = key(agent, run_id);
    let read = txn.read();
    match checked(read.taken(&key), || of_row(read, &key))? {
        Some(run) => Ok(Some(run)),
        None => read_row(read, agent, &key),
    }
}

/// What the row of a run says of itself.
fn of_row(read: &dyn Read, key: &[u8]) -> Result<Option<RunRecord>, Fault> {
    Ok(stored(read, key)?.map(|(run, _)| run))
}

/// Reads the row of a run. The step in it is kept: who asks for the run most likely asks for that, too.
fn read_row(read: &dyn Read, agent: u32, key: &[u8]) -> Result<Option<Shared<RunRecord>>, Fault> {
    let Some((run, open)) = stored(read, key)? else { return Ok(None) };
    if let Some(open) = open {
        let key = step::key(agent, &run.run_id, open.number);
        read.keep(&key, Arc::new(open) as Record);
    }
    Ok(Some(run.into()))
}

/// The step of this number, if it lies in its run's row.
pub(crate) fn step_in_row(
    read: &dyn Read,
    agent: u32,
    run_id: &str,
    number: u32,
) -> Result<Option<StepRecord>, Fault> {
    let Some((run, open)) = stored(read, &key(agent, run_id))? else { return Ok(None) };
    match open.filter(|open| open.number == number) {
        Some(open) => Ok(Some(open)),
        None => ended(&run, number),
    }
}

/// The step that lies in the row of a run.
pub(super) fn open_of(
    read: &dyn Read,
    agent: u32,
    run: &RunRecord,
) -> Result<Option<Shared<StepRecord>>, Fault> {
    let trunk = match run.trunk {
        0 => None,
        number => step::find(read, agent, &run.run_id, number)?,
    };
    Ok(trunk.filter(|step| step::lies_in_run(step)))
}

fn stored(read: &dyn Read, key: &[u8]) -> Result<Option<(RunRecord, Option<StepRecord>)>, Fault> {
    read.get(key)?.map(|row| split(key, &row)).transpose()
}

fn key(agent: u32, run_id: &str) -> RowKey {
    Key::of(Kind::Run, agent).last(run_id)
}

/// Writes a run, with the step of its trunk if that lies in its row and is open.
pub(crate) fn save(
    txn: &mut Txn<'_>,
    agent: u32,
    run: &Shared<RunRecord>,
    open: Option<&Shared<StepRecord>>,
) {
    let key = key(agent, &run.run_id);
    // Nothing more is heard of one that is executed elsewhere, most likely, until it is finished.
    if is_over(run.state()) || run.external {
        return txn.put(key, &**run);
    }
    if txn.cluster.feature_level < level::TRUNKS_LIE_IN_RUNS {
        return txn.put_kept(key, run);
    }
    if let Some(open) = open {
        txn.keep(step::key(agent, &run.run_id, open.number), open);
    }
    txn.put_joined(key, join(run, open.map(|open| &**open)), run);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_apart_as_it_was_put_together() {
        let run = RunRecord { run_id: "r".to_owned(), trunk: 3, ..RunRecord::default() };
        let step = StepRecord { number: 3, name: "main".to_owned(), ..StepRecord::default() };
        for open in [None, Some(step)] {
            let bytes = join(&run, open.as_ref());
            assert_eq!(split(b"key", &bytes).unwrap(), (run.clone(), open.clone()));
            let whole = RunRecord { open_step: open.map(Box::new), ..run.clone() };
            assert_eq!(bytes, whole.encode_to_vec(), "it is the record that other tools decode");
        }
    }
}
