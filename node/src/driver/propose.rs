//! What the driver proposes one by one, in its own name.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{self, Rejection};
use prost::Message as _;

use super::{Dispatch, PROPOSE_TIMEOUT};

/// Who the driver's commands are by.
const ACTOR: &str = "pinrail";

/// Proposes a command with a reason, which whatever it leads to carries. None: it could not be proposed, or nobody knows;
/// what became of it shows in the state.
pub(super) async fn propose(dispatch: &Dispatch, kind: Kind, why: &str) -> Option<Answer> {
    propose_all(dispatch, vec![kind], why).await?.pop()
}

/// The same with several, which go into one entry of the log: all of them, or none.
pub(super) async fn propose_all(
    dispatch: &Dispatch,
    kinds: Vec<Kind>,
    why: &str,
) -> Option<Vec<Answer>> {
    let command = |kind| {
        let header = log::Header {
            actor: ACTOR.to_owned(),
            reason: why.to_owned(),
            ..log::Header::default()
        };
        log::Command { header: Some(header), kind: Some(kind) }.encode_to_vec().into()
    };
    let commands = kinds.into_iter().map(command).collect();
    match dispatch.inner.replica.propose_here(commands, PROPOSE_TIMEOUT).await {
        Ok(outcomes) => Some(outcomes.into_iter().filter_map(|outcome| outcome.result).collect()),
        Err(error) => {
            tracing::debug!(%error, "what was found could not be proposed yet");
            None
        }
    }
}

/// The refusal among answers, if there is one.
pub(super) fn refused(answers: &[Answer]) -> Option<&Rejection> {
    answers.iter().find_map(|answer| match answer {
        Answer::Rejection(refused) => Some(refused),
        _ => None,
    })
}
