//! Gate hooks: a receiver outside says whether a stage of a release may be passed. The release driver asks, and asks again
//! while there is no answer; what an answer comes to is its business.

use pinrail_proto::{json, time, v1};
use serde_json::{Value, json as object};

use super::{message, post};
use crate::driver::Dispatch;

/// What a gate is asked.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::driver) struct GateAsk {
    pub(in crate::driver) namespace: String,
    pub(in crate::driver) agent_id: String,
    /// The agent's number.
    pub(in crate::driver) agent: u32,
    /// The candidate, and what it would take the place of.
    pub(in crate::driver) bundle_id: String,
    pub(in crate::driver) baseline_bundle_id: String,
    /// The hook as the release's own policy has it.
    pub(in crate::driver) hook: v1::Hook,
    pub(in crate::driver) stage: String,
    /// The release's number.
    pub(in crate::driver) release: u32,
    pub(in crate::driver) attempt: u32,
    /// What the stage itself has found.
    pub(in crate::driver) evidence: Value,
}

impl GateAsk {
    /// Of the stage's attempt: replicated, and what its runs carry too.
    fn attempt_id(&self) -> String {
        format!("r{}.{}.{}", self.release, self.stage, self.attempt)
    }

    /// The same in every repeat, so that a receiver knows one; the agent's number never comes again, its name may.
    fn id(&self, cluster: &str) -> String {
        format!("{cluster}/gate/{}/{}/{}", self.agent, self.attempt_id(), self.hook.name)
    }
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::driver) enum GateAnswer {
    /// 2xx.
    Pass { status: u16, said: String },
    /// A refusal; the answer's body, at most 1 KiB, is the reason.
    Refused { status: u16, said: String },
    /// There is no answer: worth asking again.
    None { why: String },
}

/// What is taken of a body, so that the evidence of a stage has room for several.
const SAID_BYTES: usize = 1 << 10;

impl Dispatch {
    /// Asks a gate once; at most 10 s.
    pub(in crate::driver) async fn gate(&self, ask: &GateAsk) -> GateAnswer {
        let replica = &self.inner.replica;
        let cluster = match replica.read(pinrail_state_machine::query::cluster) {
            Ok(cluster) => cluster.cluster,
            Err(error) => return GateAnswer::None { why: error.to_string() },
        };
        let now = time::timestamp(replica.cluster_time_ms());
        let at = json::of(&v1::Event { at: now, ..v1::Event::default() })["at"].take();
        let message = message::of_gate(
            ask.id(&cluster),
            message::source(&cluster, &ask.namespace, &ask.agent_id),
            &ask.bundle_id,
            at,
            object!({
                "namespace": ask.namespace,
                "agent_id": ask.agent_id,
                "bundle_id": ask.bundle_id,
                "baseline_bundle_id": ask.baseline_bundle_id,
                "hook": ask.hook.name,
                "release_id": format!("r{}", ask.release),
                "stage": ask.stage,
                "attempt_id": ask.attempt_id(),
                "evidence": ask.evidence,
                "next": [format!("pinrail release status {}", ask.agent_id)],
            }),
        );
        match self.post(&ask.hook.url, &ask.hook.secret, &message).await {
            Ok(answer) => judge(&answer),
            Err(error) => GateAnswer::None { why: error.to_string() },
        }
    }
}

/// Who is busy, was not reached through a proxy, or broke down has not answered the question.
fn judge(answer: &post::Answer) -> GateAnswer {
    let said = said(&answer.body);
    match answer.status {
        status @ 200..300 => GateAnswer::Pass { status, said },
        status @ (300..400 | 408 | 425 | 429 | 500..) => {
            let why =
                if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
            GateAnswer::None { why }
        }
        status => GateAnswer::Refused { status, said },
    }
}

fn said(body: &[u8]) -> String {
    let mut said = String::from_utf8_lossy(body).trim().to_owned();
    said.truncate(said.floor_char_boundary(SAID_BYTES));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> GateAnswer {
        judge(&post::Answer { status, body: body.to_owned().into(), again_ms: None })
    }

    #[test]
    fn only_who_answers_refuses() {
        let said = |text: &str| text.to_owned();
        assert_eq!(told(204, ""), GateAnswer::Pass { status: 204, said: said("") });
        assert_eq!(told(403, " no \n"), GateAnswer::Refused { status: 403, said: said("no") });
        for silent in [302, 408, 425, 429, 500, 503] {
            assert!(matches!(told(silent, "busy"), GateAnswer::None { .. }), "{silent}");
        }
        assert_eq!(told(503, "busy"), GateAnswer::None { why: said("503: busy") });
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let GateAnswer::Refused { said, .. } = told(400, &"ü".repeat(2_000)) else {
            panic!("it refuses")
        };
        assert_eq!(said.len(), SAID_BYTES);
    }
}
