//! One operation: attempts at one node after the other until its fate is known, each of them recorded.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use crate::api::{Nodes, perform};
use crate::clock;
use crate::history::{Call, Entry, Outcome, Recorder};

/// How long an operation is tried, and each of its attempts.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub attempt: Duration,
    pub whole: Duration,
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempt: Duration::from_millis(1_500),
            whole: Duration::from_secs(20),
            pause: Duration::from_millis(20),
        }
    }
}

/// A client's hands: it asks, asks again, and writes down.
#[derive(Debug)]
pub struct Operator {
    pub client: u32,
    pub nodes: Nodes,
    pub recorder: Recorder,
    pub rng: StdRng,
    pub patience: Patience,
}

impl Operator {
    /// Carries an operation through. The outcome is the last attempt's.
    pub async fn operate(&mut self, agent: &str, call: Call) -> Outcome {
        let operation = self.recorder.operation();
        let request_id = match call {
            Call::Switch { .. } | Call::Rollback { .. } | Call::PutMemory { .. } => {
                format!("chaos-{}-{operation}-{:016x}", self.client, self.rng.random::<u64>())
            }
            _ => String::new(),
        };
        let deadline = Instant::now() + self.patience.whole;
        let mut node = self.rng.random_range(0..self.nodes.len());
        loop {
            let outcome = self.attempt(agent, &call, operation, &request_id, node).await;
            let again = match &outcome {
                Outcome::Ok { .. } => false,
                Outcome::Unknown { .. } => true,
                Outcome::Rejected { reason, .. } => is_passing(reason),
            };
            if !again || Instant::now() >= deadline {
                return outcome;
            }
            // Who was not served asks somebody else.
            let others = self.nodes.len() - 1;
            node += 1 + self.rng.random_range(0..others.max(1));
            node %= self.nodes.len();
            sleep(self.patience.pause).await;
        }
    }

    /// One attempt at one node.
    pub async fn attempt(
        &mut self,
        agent: &str,
        call: &Call,
        operation: u64,
        request_id: &str,
        node: usize,
    ) -> Outcome {
        let invoked_us = clock::now_us();
        let channel = self.nodes.channel(node).clone();
        let outcome = perform(&channel, agent, call, request_id, self.patience.attempt).await;
        self.recorder.record(Entry {
            client: self.client,
            node,
            operation,
            request_id: request_id.to_owned(),
            invoked_us,
            returned_us: clock::now_us(),
            agent: agent.to_owned(),
            call: call.clone(),
            outcome: outcome.clone(),
        });
        outcome
    }
}

/// Refusals that say "not now".
fn is_passing(reason: &str) -> bool {
    matches!(reason, "NO_LEADER" | "NO_QUORUM" | "OVERLOADED" | "NOT_BOOTSTRAPPED" | "STALE_READ")
}
