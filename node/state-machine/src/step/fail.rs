//! Failure of an attempt: another one after a backoff, or the end.

use pinrail_proto::limits;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{FailStep, StepResult};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{Failure, RunState, StepState};
use xxhash_rust::xxh3::xxh3_64;

use crate::bundle::{self, StepPolicy};
use crate::event;
use crate::event::With as _;
use crate::key::Timer;
use crate::outcome::Stop;
use crate::run::{End, Subject, add_usage, cancel_now, clip, close, ends, is_over, set_state};
use crate::txn::Txn;

use super::queue::{enqueue, unleash};
use super::{held, object};

pub(crate) fn fail(txn: &mut Txn<'_>, it: &FailStep) -> Result<Answer, Stop> {
    let mut subject = held(txn, it.step.as_ref(), it.token.as_ref())?;
    if let Some(usage) = &it.usage {
        add_usage(txn, &mut subject, usage)?;
    }
    let failure = clip::failure(it.failure.as_ref());
    unleash(txn, &mut subject);
    retry_or_end(txn, &mut subject, failure)?;
    subject.save(txn);
    Ok(Answer::Step(StepResult {
        closed: is_over(subject.run.state()),
        token: None,
        step: subject.run.step,
    }))
}

/// The attempt took longer than start-to-close allows.
pub(crate) fn attempt_over(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let is_due = subject
        .step
        .as_ref()
        .is_some_and(|s| s.state() == StepState::Leased && s.attempt_deadline_ms <= txn.now);
    if !is_due || is_over(subject.run.state()) {
        return Ok(());
    }
    unleash(txn, subject);
    retry_or_end(
        txn,
        subject,
        failure("START_TO_CLOSE", "the attempt took longer than start_to_close", false),
    )
}

/// The step waited for a worker longer than schedule-to-start allows: more waiting would not help.
pub(crate) fn start_by_over(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let is_due = subject.step.as_ref().is_some_and(|s| {
        s.state() == StepState::Ready && s.start_by_ms != 0 && s.start_by_ms <= txn.now
    });
    if !is_due || is_over(subject.run.state()) {
        return Ok(());
    }
    let failure =
        failure("SCHEDULE_TO_START", "no worker took the step within schedule_to_start", true);
    close(txn, subject, End::Failed(failure));
    Ok(())
}

/// Decides what follows an attempt that failed; its lease is over already.
pub(super) fn retry_or_end(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    failure: Failure,
) -> Result<(), Stop> {
    let number = subject.agent.number;
    let Some(step) = &mut subject.step else { return Ok(()) };
    step.failure = Some(failure.clone());
    let policy = bundle::step_policy(txn.read(), number, &subject.run.bundle_id, &step.name)?;
    let used_up = step.attempt >= step.max_attempts || failure.non_retryable;
    txn.event(
        event::of_run("step.failed", &subject.agent, &subject.run.bundle_id, &subject.run.run_id)
            .with("step", &step.name)
            .with("attempt", step.attempt)
            .with("failure", &failure.reason),
    );
    if subject.run.state() == RunState::Cancelling
        || txn.now >= ends(&subject.run, &subject.bundle).soft_ms
    {
        step.set_state(StepState::Cancelled);
        step.ended_ms = txn.now;
        cancel_now(txn, subject);
    } else if used_up && policy.pause_when_exhausted {
        step.set_state(StepState::Dead);
        set_state(txn, number, &mut subject.run, RunState::Paused);
    } else if used_up {
        step.set_state(StepState::Failed);
        step.ended_ms = txn.now;
        close(txn, subject, End::Failed(failure));
    } else {
        back_off(txn, subject, &policy, &failure)?;
    }
    Ok(())
}

/// Gives a dead step as many attempts again; its checkpoints stay. False: the step is not dead.
pub(crate) fn revive(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<bool, Stop> {
    let (agent, bundle_id) = (subject.agent.number, subject.run.bundle_id.clone());
    let Some(step) = subject.step.as_mut().filter(|step| step.state() == StepState::Dead) else {
        return Ok(false);
    };
    let policy = bundle::step_policy(txn.read(), agent, &bundle_id, &step.name)?;
    // Attempts are counted on: no two of a step have the same number.
    step.max_attempts = step.attempt.saturating_add(policy.max_attempts);
    enqueue(txn, subject)?;
    Ok(true)
}

fn back_off(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    policy: &StepPolicy,
    failure: &Failure,
) -> Result<(), Stop> {
    let Some(step) = &mut subject.step else { return Ok(()) };
    let asked = failure.retry_after.as_ref().and_then(millis);
    let seed = jitter_seed(&subject.run.run_id, step.number, step.attempt, txn.revision);
    let delay_ms = asked.unwrap_or_else(|| backoff_ms(policy, step.attempt, seed));
    if delay_ms == 0 {
        return enqueue(txn, subject);
    }
    step.set_state(StepState::Backoff);
    step.timer_ms = txn.now + delay_ms.min(limits::MAX_AGE_MS);
    let timer_object = object(&subject.run.run_id, step.number);
    txn.set_timer(subject.agent.number, step.timer_ms, Timer::Backoff, &timer_object);
    set_state(txn, subject.agent.number, &mut subject.run, RunState::Queued);
    Ok(())
}

/// Exponential backoff in integer thousandths, a share of it drawn from a hash: replicas agree.
fn backoff_ms(policy: &StepPolicy, attempt: u32, seed: u64) -> u64 {
    let mut delay = policy.backoff_initial_ms;
    for _ in 1..attempt {
        if delay >= policy.backoff_max_ms {
            break;
        }
        delay = delay.saturating_mul(u64::from(policy.backoff_factor_permille)) / 1_000;
    }
    delay = delay.min(policy.backoff_max_ms);
    let spread = delay.saturating_mul(u64::from(policy.backoff_jitter_permille)) / 1_000;
    delay - if spread == 0 { 0 } else { seed % (spread + 1) }
}

fn jitter_seed(run_id: &str, step: u32, attempt: u32, revision: u64) -> u64 {
    let mut bytes = run_id.as_bytes().to_vec();
    bytes.extend_from_slice(&step.to_be_bytes());
    bytes.extend_from_slice(&attempt.to_be_bytes());
    bytes.extend_from_slice(&revision.to_be_bytes());
    xxh3_64(&bytes)
}

pub(super) fn failure(reason: &str, message: &str, non_retryable: bool) -> Failure {
    Failure {
        reason: reason.to_owned(),
        message: message.to_owned(),
        non_retryable,
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: StepPolicy = StepPolicy {
        start_to_close_ms: 1,
        schedule_to_start_ms: 0,
        lease_ms: 1,
        max_attempts: 9,
        backoff_initial_ms: 1_000,
        backoff_factor_permille: 2_000,
        backoff_max_ms: 5_000,
        backoff_jitter_permille: 200,
        pause_when_exhausted: false,
    };

    #[test]
    fn backoff_grows_to_its_limit_and_jitter_only_shortens_it() {
        let full =
            |attempt| backoff_ms(&StepPolicy { backoff_jitter_permille: 0, ..POLICY }, attempt, 7);
        assert_eq!((1..=5).map(full).collect::<Vec<_>>(), [1_000, 2_000, 4_000, 5_000, 5_000]);
        for seed in 0..1_000 {
            assert!((4_000..=5_000).contains(&backoff_ms(&POLICY, 9, seed)));
        }
    }
}
