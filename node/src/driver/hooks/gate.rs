//! Gate hooks: a receiver outside says whether a stage of a release may be passed. The stage loop asks, and asks again
//! while there is no answer, until the stage's own timeout; what an answer comes to is the state machine's to decide.

use pinrail_proto::{json, time, v1};
use serde_json::{Value, json as object};

use super::message;
use crate::driver::Dispatch;

/// What a gate is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct GateAsk {
    pub namespace: String,
    pub agent_id: String,
    /// The candidate.
    pub bundle_id: String,
    /// The hook as the release's own policy has it.
    pub hook: v1::Hook,
    pub stage: String,
    /// Id of the stage's attempt: the same in every repeat, so that a receiver knows one.
    pub attempt_id: String,
    /// What else the receiver should know: the evidence so far, say.
    pub details: Value,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateAnswer {
    /// 2xx.
    Pass,
    /// Any other status; the answer's body, at most 4 KiB, is the reason.
    Fail { status: u16, reason: String },
    /// There is no answer: worth asking again.
    Error { why: String },
}

impl Dispatch {
    /// Asks a gate once; at most 10 s.
    pub async fn gate(&self, ask: &GateAsk) -> GateAnswer {
        let replica = &self.inner.replica;
        let cluster = match replica.read(pinrail_state_machine::query::cluster) {
            Ok(cluster) => cluster.cluster,
            Err(error) => return GateAnswer::Error { why: error.to_string() },
        };
        let now = time::timestamp(replica.cluster_time_ms());
        let at = json::of(&v1::Event { at: now, ..v1::Event::default() })["at"].take();
        let message = message::of_gate(
            message::source(&cluster, &ask.namespace, &ask.agent_id),
            &ask.attempt_id,
            &ask.bundle_id,
            at,
            object!({
                "namespace": ask.namespace,
                "agent_id": ask.agent_id,
                "bundle_id": ask.bundle_id,
                "stage": ask.stage,
                "attempt_id": ask.attempt_id,
                "details": ask.details,
                "next": [format!("pinrail release status {}", ask.agent_id)],
            }),
        );
        match self.post(&ask.hook.url, &ask.hook.secret, &message).await {
            Ok(answer) if (200..300).contains(&answer.status) => GateAnswer::Pass,
            Ok(answer) => GateAnswer::Fail {
                status: answer.status,
                reason: String::from_utf8_lossy(&answer.body).trim().to_owned(),
            },
            Err(error) => GateAnswer::Error { why: error.to_string() },
        }
    }
}
