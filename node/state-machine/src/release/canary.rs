//! Who goes to the candidate while a canary is out.

use pinrail_proto::log::{AgentRecord, RunRecord};
use pinrail_proto::{id, v1};
use sha2::{Digest as _, Sha256};

use crate::store::{Fault, Read};

use super::policy;

/// Whether the candidate has a share of the traffic.
pub(crate) fn is_canary(agent: &AgentRecord) -> bool {
    agent.canary_bp != 0
}

/// Whether a run that the route decides goes to the candidate: by one of its labels, or by the place of its session
/// (else its own id) among ten thousand. The place does not depend on the share, so a growing share only adds.
pub(crate) fn draws(read: &dyn Read, agent: &AgentRecord, run: &RunRecord) -> Result<bool, Fault> {
    if !is_canary(agent) {
        return Ok(false);
    }
    let key = if run.session.is_empty() { &run.run_id } else { &run.session };
    if place(agent, key) < agent.canary_bp {
        return Ok(true);
    }
    if run.labels.is_empty() {
        return Ok(false);
    }
    let canary = policy(read, agent.number, agent.active_release)?.gates.and_then(|g| g.canary);
    Ok(canary.is_some_and(|canary| is_included(&canary, run)))
}

fn is_included(canary: &v1::CanaryGate, run: &RunRecord) -> bool {
    canary.include.iter().any(|(label, wanted)| {
        run.labels.get(label).is_some_and(|value| wanted.values.contains(value))
    })
}

/// First 8 bytes of SHA-256(agent, release, key) modulo 10,000 (model, section 4).
fn place(agent: &AgentRecord, key: &str) -> u32 {
    let mut hash = Sha256::new();
    for part in [agent.namespace.as_str(), agent.agent_id.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(agent.active_release.to_be_bytes());
    hash.update(key.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    id::place(&digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(release: u32) -> AgentRecord {
        AgentRecord {
            namespace: "default".to_owned(),
            agent_id: "support".to_owned(),
            active_release: release,
            ..AgentRecord::default()
        }
    }

    #[test]
    fn the_share_of_ten_thousand_keys_is_within_half_a_point() {
        for share in [500, 2_500] {
            let agent = agent(3);
            let hit =
                (0..10_000).filter(|n| place(&agent, &format!("session-{n}")) < share).count();
            let off = hit.abs_diff(share as usize);
            assert!(off <= 50, "share {share}: {hit} of 10,000");
        }
    }

    #[test]
    fn another_release_draws_others() {
        let keys: Vec<String> = (0..1_000).map(|n| format!("s{n}")).collect();
        let drawn = |release| -> Vec<bool> {
            keys.iter().map(|key| place(&agent(release), key) < 500).collect()
        };
        assert_ne!(drawn(1), drawn(2));
    }
}
