//! What a step's handler answers: the next step, the run's output, or a failure that says whether to try again.

use std::error::Error as StdError;
use std::fmt;

use pinrail_proto::v1::{self, Payload};
use pinrail_proto::{limits, reason, time};
use serde::Serialize;
use tokio::time::Duration;

use crate::payload::{self, PayloadError};

/// What a handler returns.
pub type StepResult<T> = Result<T, StepError>;

/// Reason of a failure that names none.
pub const STEP_ERROR: &str = "STEP_ERROR";

/// How the run goes on.
#[derive(Debug)]
#[must_use]
pub struct Next {
    outcome: StepResult<v1::complete_step::Outcome>,
}

impl Next {
    /// Another step of this run, on the same bundle.
    pub fn step<T: Serialize>(name: impl Into<String>, input: T) -> Next {
        let name = name.into();
        let outcome = payload::encode(&input)
            .map(|input| {
                v1::complete_step::Outcome::Next(v1::NextStep { name, input: Some(input) })
            })
            .map_err(|error| StepError::fatal("INVALID_OUTPUT", error));
        Next { outcome }
    }

    /// The run is done with this output.
    pub fn done<T: Serialize>(output: T) -> Next {
        let outcome = payload::encode(&output)
            .map(v1::complete_step::Outcome::Done)
            .map_err(|error| StepError::fatal("INVALID_OUTPUT", error));
        Next { outcome }
    }

    /// The run is done with this output, as it is.
    pub fn done_with(output: Payload) -> Next {
        Next { outcome: Ok(v1::complete_step::Outcome::Done(output)) }
    }

    /// The run waits for a signal of this name; `then` says how it goes on, `timeout` how long it waits at most. A signal
    /// that came before is taken at once, the oldest first.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use pinrail_client::worker::{Next, StepContext, StepResult, Wait};
    ///
    /// async fn refund(_: StepContext, order: String) -> StepResult<Next> {
    ///     let limit = Duration::from_secs(3 * 86_400);
    ///     Ok(Next::wait("approved").timeout(limit).then("decided", order))
    /// }
    ///
    /// async fn decided(ctx: StepContext, order: String) -> StepResult<Next> {
    ///     Ok(match ctx.woken::<String>()? {
    ///         Some(Wait::Signal(by)) => Next::done(format!("{order}: approved by {by}")),
    ///         Some(Wait::TimedOut) | None => Next::done(format!("{order}: nobody answered")),
    ///     })
    /// }
    /// ```
    pub fn wait(signal: impl Into<String>) -> WaitFor {
        WaitFor { signal: signal.into(), timeout: None }
    }

    /// The run waits for so long; `then` says how it goes on.
    pub fn sleep(time: Duration) -> WaitFor {
        WaitFor { signal: String::new(), timeout: Some(time) }
    }

    /// The run goes on with all of these steps at once, at most 1,000, and behind them with the one that
    /// [`FanOut::join`] names.
    ///
    /// A branch may itself go on with further steps, wait or fan out; it is over with [`Next::done`].
    ///
    /// ```
    /// use pinrail_client::worker::{Next, StepContext, StepResult};
    ///
    /// async fn research(_: StepContext, urls: Vec<String>) -> StepResult<Next> {
    ///     Ok(Next::all(urls.into_iter().map(|url| ("read", url))).join("merge"))
    /// }
    ///
    /// async fn merge(_: StepContext, pages: Vec<String>) -> StepResult<Next> {
    ///     Ok(Next::done(pages.join("\n")))
    /// }
    /// ```
    pub fn all<N: Into<String>, T: Serialize>(
        branches: impl IntoIterator<Item = (N, T)>,
    ) -> FanOut {
        let branch = |(name, input): (N, T)| {
            let input = Some(payload::encode(&input)?);
            Ok(v1::NextStep { name: name.into(), input })
        };
        let branches = branches.into_iter().map(branch).collect();
        FanOut { branches, settle: false }
    }

    /// The run waits for a child: a run of the same agent that begins with the step `entry`, on the same bundle, with the
    /// same memory and at most the same end. Meanwhile it holds no lease and no slot, and it is told however the child ends.
    ///
    /// ```
    /// use pinrail_client::worker::{Next, StepContext, StepResult};
    ///
    /// async fn order(_: StepContext, items: Vec<String>) -> StepResult<Next> {
    ///     Ok(Next::child("billing", items).then("ship", "express"))
    /// }
    ///
    /// async fn ship(ctx: StepContext, how: String) -> StepResult<Next> {
    ///     let invoice: String = ctx.child()?;
    ///     Ok(Next::done(format!("{invoice}, sent by {how}")))
    /// }
    /// ```
    pub fn child<T: Serialize>(entry: impl Into<String>, input: T) -> Child {
        Child { entry: entry.into(), input: payload::encode(&input) }
    }

    /// The run ends, and a new one takes its place with this input and a history of its own: for loops without an end. Bundle,
    /// memory and end stay, unless [`Next::on_live_bundle`] says otherwise. Who waits for the result waits for the last
    /// one's. Children of the run that ends are cancelled.
    pub fn continue_as_new<T: Serialize>(input: T) -> Next {
        let outcome = payload::encode(&input)
            .map(|input| {
                let input = Some(input);
                v1::complete_step::Outcome::ContinueAsNew(v1::ContinueRun {
                    input,
                    on_live_bundle: false,
                })
            })
            .map_err(|error| StepError::fatal("INVALID_OUTPUT", error));
        Next { outcome }
    }

    /// The run that continues this one is pinned to the live bundle, with a new end. It says nothing to any other outcome.
    pub fn on_live_bundle(mut self) -> Next {
        if let Ok(v1::complete_step::Outcome::ContinueAsNew(next)) = &mut self.outcome {
            next.on_live_bundle = true;
        }
        self
    }

    pub(crate) fn into_outcome(self) -> StepResult<v1::complete_step::Outcome> {
        self.outcome
    }
}

/// Steps that a run goes on with at once.
#[derive(Debug)]
#[must_use]
pub struct FanOut {
    branches: Result<Vec<v1::NextStep>, PayloadError>,
    settle: bool,
}

impl FanOut {
    /// The join comes even when branches fail: its input is then a list of [`Branch`](crate::worker::Branch). Without it
    /// the first failure of a branch, after all of its attempts, fails the run, or the branch that the fan-out is in.
    pub fn settle(mut self) -> FanOut {
        self.settle = true;
        self
    }

    /// The step that gets the outputs of the branches, in their order, as a list.
    pub fn join(self, name: impl Into<String>) -> Next {
        let FanOut { branches, settle } = self;
        let outcome = branches
            .map(|branches| {
                let join = name.into();
                v1::complete_step::Outcome::All(v1::FanOut { branches, join, settle })
            })
            .map_err(|error| StepError::fatal("INVALID_OUTPUT", error));
        Next { outcome }
    }
}

/// A child that a run waits for.
#[derive(Debug)]
#[must_use]
pub struct Child {
    entry: String,
    input: Result<Payload, PayloadError>,
}

impl Child {
    /// The step that the run goes on with, and its input. How the child ended is told by
    /// [`StepContext::child`](crate::worker::StepContext::child).
    pub fn then<T: Serialize>(self, name: impl Into<String>, input: T) -> Next {
        let Child { entry, input: of_child } = self;
        let outcome = of_child
            .and_then(|of_child| {
                let then =
                    v1::NextStep { name: name.into(), input: Some(payload::encode(&input)?) };
                Ok(v1::complete_step::Outcome::Child(v1::ChildRun {
                    entry,
                    input: Some(of_child),
                    then: Some(then),
                }))
            })
            .map_err(|error| StepError::fatal("INVALID_OUTPUT", error));
        Next { outcome }
    }
}

/// What a run waits for. Meanwhile it holds no lease and no slot of any worker, and it ends when its pin does.
#[derive(Debug)]
#[must_use]
pub struct WaitFor {
    signal: String,
    timeout: Option<Duration>,
}

impl WaitFor {
    /// Goes on without the signal after this time; without it only the signal ends the wait.
    pub fn timeout(mut self, limit: Duration) -> WaitFor {
        self.timeout = Some(limit);
        self
    }

    /// The step that the run goes on with, and its input. What ended the wait is told by
    /// [`StepContext::woken`](crate::worker::StepContext::woken).
    pub fn then<T: Serialize>(self, name: impl Into<String>, input: T) -> Next {
        let WaitFor { signal, timeout } = self;
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let outcome = payload::encode(&input)
            .map(|input| {
                let then = Some(v1::NextStep { name: name.into(), input: Some(input) });
                let timeout = timeout.map(|limit| time::duration(millis(limit)));
                v1::complete_step::Outcome::Wait(v1::WaitStep { signal, timeout, then })
            })
            .map_err(|error| StepError::fatal("INVALID_OUTPUT", error));
        Next { outcome }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait<T> {
    /// The signal came, with this value.
    Signal(T),
    /// The time was over.
    TimedOut,
}

/// Why a step failed. Any standard error becomes one with `?`, and is tried again as the step's policy says.
#[derive(Debug)]
pub struct StepError {
    kind: Kind,
    reason: String,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Retry {
        after: Option<Duration>,
    },
    Fatal,
    /// The lease is gone: nobody wants to hear of this step any more.
    Stale,
}

impl StepError {
    /// Another attempt may help.
    pub fn retry(error: impl fmt::Display) -> StepError {
        StepError::new(Kind::Retry { after: None }, STEP_ERROR, error.to_string())
    }

    /// Another attempt may help, after this time.
    pub fn retry_after(after: Duration, error: impl fmt::Display) -> StepError {
        StepError::new(Kind::Retry { after: Some(after) }, STEP_ERROR, error.to_string())
    }

    /// No other attempt can help. The reason is short and stable: programs match on it.
    pub fn fatal(reason: impl Into<String>, error: impl fmt::Display) -> StepError {
        StepError::new(Kind::Fatal, reason, error.to_string())
    }

    /// The same with another reason.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> StepError {
        self.reason = reason.into();
        self
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether another attempt may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retry { .. })
    }

    pub(crate) fn stale() -> StepError {
        let reason = reason::LEASE_STALE;
        StepError::new(Kind::Stale, reason.name, reason.help.to_owned())
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.kind == Kind::Stale
    }

    /// What the cluster refused: only what may change by itself is worth another attempt.
    pub(crate) fn refused(refused: v1::Refused) -> StepError {
        if refused.reason == reason::LEASE_STALE.name {
            return StepError::stale();
        }
        let changes = [reason::REVISION_MISMATCH, reason::QUOTA_EXCEEDED];
        if changes.iter().any(|reason| reason.name == refused.reason) {
            return StepError::retry(refused.message).with_reason(refused.reason);
        }
        StepError::fatal(refused.reason, refused.message)
    }

    pub(crate) fn into_failure(self) -> v1::Failure {
        let (non_retryable, after) = match self.kind {
            Kind::Retry { after } => (false, after),
            Kind::Fatal | Kind::Stale => (true, None),
        };
        let after = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        v1::Failure {
            reason: self.reason,
            message: shorten(self.message),
            non_retryable,
            retry_after: after.map(time::duration),
        }
    }

    fn new(kind: Kind, reason: impl Into<String>, message: String) -> StepError {
        StepError { kind, reason: reason.into(), message }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

// `StepError` is no standard error itself: that is what makes this possible, as in anyhow.
impl<E: StdError + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> StepError {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        StepError::retry(message)
    }
}

/// Cuts a text to what the cluster takes, between two characters.
fn shorten(mut text: String) -> String {
    if text.len() > limits::TEXT_BYTES {
        let mut end = limits::TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> StepResult<()> {
        Err(std::io::Error::other("disk gone"))?;
        Ok(())
    }

    #[test]
    fn any_standard_error_is_tried_again() {
        let failure = read().expect_err("it fails").into_failure();
        assert!(!failure.non_retryable);
        assert_eq!(failure.message, "disk gone");
    }

    #[test]
    fn fatal_and_retry_after_say_so() {
        let fatal = StepError::fatal("CARD_DECLINED", "no money").into_failure();
        assert!(fatal.non_retryable);
        assert_eq!(fatal.reason, "CARD_DECLINED");
        let later = StepError::retry_after(Duration::from_secs(2), "busy").into_failure();
        assert_eq!(later.retry_after, Some(time::duration(2_000)));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let failure = StepError::retry("ä".repeat(limits::TEXT_BYTES)).into_failure();
        assert!(failure.message.len() <= limits::TEXT_BYTES);
        assert!(failure.message.ends_with('ä'));
    }

    #[test]
    fn a_stale_lease_is_no_failure_to_report() {
        let refused = v1::Refused { reason: "LEASE_STALE".into(), ..Default::default() };
        assert!(StepError::refused(refused).is_stale());
        let refused = v1::Refused { reason: "CHECKPOINT_MISMATCH".into(), ..Default::default() };
        assert!(!StepError::refused(refused).is_retryable());
    }
}
