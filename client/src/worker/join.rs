//! The input of a step that joins a fan-out: the outputs of the branches, in their order, as one JSON list. They are read
//! from the cluster when the step begins, so a thousand large ones never travel in one message.

use pinrail_proto::json;
use pinrail_proto::v1::{self, Payload};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::payload;
use crate::worker::context::StepContext;
use crate::worker::outcome::{StepError, StepResult};

/// How a branch of a settled fan-out ended: an element of the input of the step that joins it.
///
/// ```
/// use pinrail_client::worker::{Branch, Next, StepContext, StepResult};
///
/// async fn merge(_: StepContext, pages: Vec<Branch<String>>) -> StepResult<Next> {
///     let read: Vec<String> = pages.into_iter().filter_map(Branch::ok).collect();
///     Ok(Next::done(read.join("\n")))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Branch<T> {
    /// Its output.
    Ok(T),
    /// Why it failed.
    Error(BranchError),
}

impl<T> Branch<T> {
    /// The output, if the branch has one.
    #[must_use]
    pub fn ok(self) -> Option<T> {
        match self {
            Self::Ok(output) => Some(output),
            Self::Error(_) => None,
        }
    }
}

/// Why a branch failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BranchError {
    /// Short and stable.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Reads what the branches answered. Another attempt reads the same.
pub(crate) async fn input(context: &StepContext, join: v1::Join) -> StepResult<Payload> {
    let inner = context.inner();
    let mut request = v1::ListBranchesRequest {
        namespace: inner.namespace.clone(),
        agent_id: inner.agent.clone(),
        run_id: inner.run_id.clone(),
        step: inner.step,
        read: Some(v1::ReadOptions {
            consistency: v1::Consistency::Local.into(),
            // Whoever has applied the lease has the branches.
            min_revision: inner.token.revision,
        }),
        ..v1::ListBranchesRequest::default()
    };
    let mut values = Vec::new();
    loop {
        let page = inner.client.runs().branches(request.clone()).await?;
        values.extend(page.branches.into_iter().map(|branch| value(branch, join.settle)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if u32::try_from(values.len()).ok() != Some(join.branches) {
        let message = format!("{} of {} branches were read", values.len(), join.branches);
        return Err(StepError::retry(message));
    }
    payload::encode(&values).map_err(|error| StepError::fatal("INVALID_INPUT", error))
}

fn value(branch: v1::Branch, settle: bool) -> Value {
    match branch.failure {
        Some(failure) => {
            json!({ "error": { "reason": failure.reason, "message": failure.message } })
        }
        None => {
            let output = json::payload(&branch.output.unwrap_or_default());
            if settle { json!({ "ok": output }) } else { output }
        }
    }
}
