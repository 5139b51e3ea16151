//! What a program says at the end of a step, as the worker runtime takes it.

use serde_json::Value;
use tokio::time::Duration;

use crate::worker::{Next, StepError, StepResult};

use super::protocol::{Fail, Outcome, Retry};

/// Reason of an attempt whose program broke the protocol.
pub(super) const PROTOCOL: &str = "PROTOCOL";

impl Outcome {
    /// An outcome that stands alone: the last line of a process, the answer of a server. `None`: it is not even an object.
    ///
    /// # Errors
    /// `PROTOCOL` for an object that is no outcome.
    pub(super) fn parse(text: &[u8]) -> StepResult<Option<Self>> {
        let Ok(Value::Object(mut object)) = serde_json::from_slice(text) else { return Ok(None) };
        match object.remove("type") {
            None => {}
            Some(kind) if kind == "outcome" => {}
            Some(kind) => {
                return Err(StepError::fatal(
                    PROTOCOL,
                    format!("an outcome, not {kind}, is meant here"),
                ));
            }
        }
        let parsed = serde_json::from_value(Value::Object(object));
        parsed.map(Some).map_err(|error| StepError::fatal(PROTOCOL, error))
    }

    pub(super) fn into_next(self) -> StepResult<Next> {
        let Self { next, done, wait, sleep, fail, input, timeout, then } = self;
        let then = move || {
            then.ok_or_else(|| {
                StepError::fatal(PROTOCOL, "a wait says with `then` what comes then")
            })
        };
        match (next, done, wait, sleep, fail) {
            (Some(name), None, None, None, None) => Ok(Next::step(name, input)),
            (None, Some(output), None, None, None) => Ok(Next::done(output)),
            (None, None, Some(signal), None, None) => {
                let wait = Next::wait(signal);
                let wait = match timeout {
                    Some(limit) => wait.timeout(span(&limit)?),
                    None => wait,
                };
                Ok(wait.then(then()?, input))
            }
            (None, None, None, Some(time), None) => {
                Ok(Next::sleep(span(&time)?).then(then()?, input))
            }
            (None, None, None, None, Some(fail)) => Err(fail.into_error()?),
            _ => {
                let message = "an outcome is one of next, done, wait, sleep and fail";
                Err(StepError::fatal(PROTOCOL, message))
            }
        }
    }
}

impl Fail {
    fn into_error(self) -> StepResult<StepError> {
        let reason = if self.reason.is_empty() { crate::worker::STEP_ERROR } else { &self.reason };
        Ok(match (self.retry, &self.after) {
            (Retry::Never, _) => StepError::fatal(reason, self.message),
            (Retry::Auto, None) => StepError::retry(self.message).with_reason(reason),
            (Retry::Auto, Some(after)) => {
                StepError::retry_after(span(after)?, self.message).with_reason(reason)
            }
        })
    }
}

fn span(text: &str) -> StepResult<Duration> {
    humantime::parse_duration(text)
        .map_err(|error| StepError::fatal(PROTOCOL, format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_stands_alone_may_leave_out_its_type() {
        for text in
            [r#"{"done":1}"#, r#"{"type":"outcome","next":"a"}"#, r#" {"sleep":"1s","then":"a"} "#]
        {
            assert!(matches!(Outcome::parse(text.as_bytes()), Ok(Some(_))), "{text}");
        }
        for text in ["", "done", "[1]", "\"done\"", "{broken"] {
            assert!(matches!(Outcome::parse(text.as_bytes()), Ok(None)), "{text}");
        }
        for text in [r#"{"type":"usage","done":1}"#, r#"{"finished":true}"#, r#"{"next":1}"#] {
            let error = Outcome::parse(text.as_bytes()).expect_err(text);
            assert_eq!((error.reason(), error.is_retryable()), (PROTOCOL, false), "{text}");
        }
    }
}
