//! Failure of an attempt: another one after a backoff, or the end.

use pinrail_proto::limits;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{FailStep, StepResult};
use pinrail_proto::time::millis;
use pinrail_proto::v1::{Failure, Payload, StepState};
use xxhash_rust::xxh3::xxh3_64;

use crate::bundle::{self, StepPolicy};
use crate::event;
use crate::event::With as _;
use crate::key::Timer;
use crate::outcome::Stop;
use crate::run::{Subject, add_usage, clip, is_over, stop_if_ending};
use crate::txn::Txn;

use super::queue::{close, enqueue, unleash};
use super::state::turn;
use super::{fan_out, held, object};

pub(crate) fn fail(txn: &mut Txn<'_>, it: &FailStep) -> Result<Answer, Stop> {
    let mut subject = held(txn, it.step.as_ref(), it.token.as_ref())?;
    if let Some(usage) = &it.usage {
        add_usage(txn, &mut subject, usage)?;
    }
    let failure = clip::failure(it.failure.as_ref());
    unleash(txn, &mut subject);
    note_progress(&mut subject, it.progress.as_ref());
    retry_or_end(txn, &mut subject, failure)?;
    subject.save(txn)?;
    Ok(Answer::Step(StepResult {
        closed: is_over(subject.run.state()),
        step: subject.run.step,
        ..StepResult::default()
    }))
}

/// Keeps how far an attempt said that it came, for the next one.
pub(super) fn note_progress(subject: &mut Subject, progress: Option<&Payload>) {
    if let Some(progress) = progress.filter(|it| it.data.len() <= limits::PROGRESS_BYTES)
        && let Some(step) = &mut subject.step
    {
        step.progress = Some(progress.clone());
    }
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
    let failure = if is_past_close(subject, txn.now) {
        past_close()
    } else {
        failure("START_TO_CLOSE", "the attempt took longer than start_to_close", false)
    };
    retry_or_end(txn, subject, failure)
}

/// Whether the time of a step with all of its attempts is over.
fn is_past_close(subject: &Subject, now: u64) -> bool {
    let close_by_ms = subject.step.as_ref().map_or(0, |step| step.close_by_ms);
    close_by_ms != 0 && close_by_ms <= now
}

fn past_close() -> Failure {
    let message = "the step took longer than schedule_to_close, with all of its attempts";
    failure("SCHEDULE_TO_CLOSE", message, true)
}

/// The step waited for a worker longer than schedule-to-start allows: more waiting would not help.
pub(crate) fn start_by_over(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<(), Stop> {
    let is_due = subject.step.as_ref().is_some_and(|s| {
        s.state() == StepState::Ready && s.start_by_ms != 0 && s.start_by_ms <= txn.now
    });
    if !is_due || is_over(subject.run.state()) {
        return Ok(());
    }
    let failure = if is_past_close(subject, txn.now) {
        past_close()
    } else {
        failure("SCHEDULE_TO_START", "no worker took the step within schedule_to_start", true)
    };
    close(txn, subject, StepState::Failed);
    fan_out::fail(txn, subject, failure)
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
    if stop_if_ending(txn, subject)? {
        return Ok(());
    }
    if !used_up {
        return back_off(txn, subject, &policy, &failure);
    }
    give_up(txn, subject, &policy, failure)
}

/// The step, whose lease is over, will not be tried again by itself.
fn give_up(
    txn: &mut Txn<'_>,
    subject: &mut Subject,
    policy: &StepPolicy,
    failure: Failure,
) -> Result<(), Stop> {
    if policy.pause_when_exhausted {
        end(txn, subject, StepState::Dead);
        return Ok(());
    }
    end(txn, subject, StepState::Failed);
    fan_out::fail(txn, subject, failure)
}

fn end(txn: &mut Txn<'_>, subject: &mut Subject, state: StepState) {
    let Subject { agent, run, step: Some(step), .. } = subject else { return };
    turn(txn, agent.number, run, step, state);
    if state == StepState::Failed {
        step.ended_ms = txn.now;
    }
}

/// Gives the dead steps of a run as many attempts again; their checkpoints stay. False: none is dead.
pub(crate) fn revive(txn: &mut Txn<'_>, subject: &mut Subject) -> Result<bool, Stop> {
    let (agent, bundle_id) = (subject.agent.number, subject.run.bundle_id.clone());
    let mut dead = fan_out::open_steps(txn, subject)?;
    dead.retain(|step| step.state() == StepState::Dead);
    let any = !dead.is_empty();
    for mut step in dead {
        let policy = bundle::step_policy(txn.read(), agent, &bundle_id, &step.name)?;
        // Attempts are counted on: no two of a step have the same number.
        step.max_attempts = step.attempt.saturating_add(policy.max_attempts);
        // Its time counts anew.
        step.close_by_ms = 0;
        subject.go_on_with(txn, step);
        enqueue(txn, subject)?;
    }
    Ok(any)
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
    let delay_ms = delay_ms.min(limits::MAX_AGE_MS);
    if step.close_by_ms != 0 && txn.now + delay_ms >= step.close_by_ms {
        // No time is left for another attempt: what this one failed with is told.
        return give_up(txn, subject, policy, failure.clone());
    }
    let Subject { agent, run, step: Some(step), .. } = subject else { return Ok(()) };
    turn(txn, agent.number, run, step, StepState::Backoff);
    step.timer_ms = txn.now + delay_ms;
    txn.set_timer(agent.number, step.timer_ms, Timer::Backoff, &object(&run.run_id, step.number));
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
        schedule_to_close_ms: 0,
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
