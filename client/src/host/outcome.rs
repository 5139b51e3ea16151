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
        let said = [
            self.next.is_some(),
            self.done.is_some(),
            self.all.is_some(),
            self.child.is_some(),
            self.continue_with.is_some(),
            self.wait.is_some(),
            self.sleep.is_some(),
            self.fail.is_some(),
        ];
        if said.into_iter().filter(|said| *said).count() != 1 {
            let message =
                "an outcome is one of next, done, all, child, continue, wait, sleep and fail";
            return Err(StepError::fatal(PROTOCOL, message));
        }
        if let Some(fail) = self.fail {
            return Err(fail.into_error()?);
        }
        if let Some(output) = self.done {
            return Ok(Next::done(output));
        }
        if let Some(name) = self.next {
            return Ok(Next::step(name, self.input));
        }
        if let Some(input) = self.continue_with {
            let next = Next::continue_as_new(input);
            return Ok(if self.on_live_bundle { next.on_live_bundle() } else { next });
        }
        if let Some(branches) = self.all {
            let no_join =
                || StepError::fatal(PROTOCOL, "a fan-out names with `join` what joins it");
            let all = Next::all(branches.into_iter().map(|branch| (branch.next, branch.input)));
            let all = if self.settle { all.settle() } else { all };
            return Ok(all.join(self.join.ok_or_else(no_join)?));
        }
        let no_then = || StepError::fatal(PROTOCOL, "a wait says with `then` what comes then");
        let then = self.then.ok_or_else(no_then)?;
        if let Some(child) = self.child {
            return Ok(Next::child(child.entry, child.input).then(then, self.input));
        }
        let wait = match (self.wait, &self.sleep) {
            (_, Some(time)) => Next::sleep(span(time)?),
            (signal, None) => Next::wait(signal.unwrap_or_default()),
        };
        let wait = match &self.timeout {
            Some(limit) => wait.timeout(span(limit)?),
            None => wait,
        };
        Ok(wait.then(then, self.input))
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
    use pinrail_proto::v1;

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
        let wide = br#"{"all":[{"next":"a","input":1},{"next":"b"}],"join":"c","settle":true}"#;
        let Ok(Some(wide)) = Outcome::parse(wide) else { panic!("it is an outcome") };
        let Ok(v1::complete_step::Outcome::All(all)) =
            wide.into_next().and_then(Next::into_outcome)
        else {
            panic!("it fans out")
        };
        let names: Vec<_> = all.branches.iter().map(|branch| branch.name.as_str()).collect();
        assert_eq!((names, all.join.as_str(), all.settle), (vec!["a", "b"], "c", true));
        for text in [
            r#"{"child":{"entry":"a","input":1},"then":"b"}"#,
            r#"{"continue":null,"on_live_bundle":true}"#,
        ] {
            let Ok(Some(outcome)) = Outcome::parse(text.as_bytes()) else { panic!("{text}") };
            assert!(outcome.into_next().is_ok(), "{text}");
        }
        for text in [
            r#"{"all":[{"next":"a"}]}"#,
            r#"{"child":{"entry":"a"}}"#,
            r#"{"all":[{"next":"a"}],"join":"c","done":1}"#,
        ] {
            let Ok(Some(outcome)) = Outcome::parse(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(outcome.into_next().expect_err(text).reason(), PROTOCOL, "{text}");
        }
        for text in [r#"{"type":"usage","done":1}"#, r#"{"finished":true}"#, r#"{"next":1}"#] {
            let error = Outcome::parse(text.as_bytes()).expect_err(text);
            assert_eq!((error.reason(), error.is_retryable()), (PROTOCOL, false), "{text}");
        }
    }
}
