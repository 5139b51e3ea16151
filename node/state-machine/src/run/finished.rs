//! Telling the end of a run to who asked for it: the hook that its start named, and hooks that ask for all ends.

use pinrail_proto::limits;
use pinrail_proto::v1::EndReason;

use crate::event::With as _;
use crate::hook::RUN_FINISHED;
use crate::store::Fault;
use crate::txn::Txn;
use crate::{event, hook};

use super::{Subject, payloads};

/// Emits `run.finished` for a run that is over, if anybody asks for it. The result goes along while it is small: the
/// run may be forgotten before the hook answers.
pub(super) fn tell(txn: &mut Txn<'_>, subject: &Subject) -> Result<(), Fault> {
    let (agent, run) = (&subject.agent, &subject.run);
    if run.callback.is_empty() && !agent.tells_finished {
        return Ok(());
    }
    let mut told = event::of_run(RUN_FINISHED, agent, &run.bundle_id, &run.run_id)
        .with("state", event::word(run.state().as_str_name(), "RUN_STATE_"));
    if !run.callback.is_empty() {
        told = told.with(hook::CALLBACK, &run.callback);
    }
    if run.end_reason() != EndReason::Unspecified {
        told = told.with("end_reason", event::word(run.end_reason().as_str_name(), "END_REASON_"));
    }
    if let Some(failure) = &run.failure {
        told = told.with("failure", &failure.reason);
        if !failure.message.is_empty() {
            told = told.with("failure_message", &failure.message);
        }
    }
    if !run.first_run_id.is_empty() {
        told = told.with("first_run", &run.first_run_id);
    }
    match payloads::output(txn.read(), agent.number, run)? {
        Some(output) if output.data.len() > limits::CALLBACK_RESULT_BYTES => {
            told = told.with("result_bytes", output.data.len());
        }
        small => told.data = small,
    }
    txn.event(told);
    Ok(())
}
