//! The part of an agent's policy that every step and every write of memory reads.

use pinrail_proto::v1;

use crate::key::{Key, Kind};
use crate::store::{Fault, Read};
use crate::txn::shared;

/// The row of a policy, read only so far: the rest is stepped over, for decoding all of it was an eighth of what a step cost.
#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(message, optional, tag = "1")]
    policy: Option<DailyPolicy>,
}

/// Has the fields of [`v1::Policy`] with their numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DailyPolicy {
    #[prost(message, optional, tag = "5")]
    pub(crate) steps: Option<v1::StepPolicy>,
    #[prost(message, optional, tag = "8")]
    pub(crate) memory: Option<v1::MemoryPolicy>,
}

/// # Errors
/// A [`Fault`] when the store cannot answer, or the agent has no policy.
pub(crate) fn daily_policy(read: &dyn Read, agent: u32) -> Result<DailyPolicy, Fault> {
    let row = shared::<Row>(read, &Key::of(Kind::Policy, agent).build())?;
    row.and_then(|row| row.policy.clone())
        .ok_or_else(|| Fault(format!("agent {agent} has no policy")))
}

#[cfg(test)]
mod tests {
    use pinrail_proto::log::PolicyRecord;
    use prost::Message as _;

    use super::*;

    #[test]
    fn its_fields_are_where_the_whole_policy_has_them() {
        let steps = v1::StepPolicy { max_attempts: Some(7), ..v1::StepPolicy::default() };
        let memory = v1::MemoryPolicy { quota_bytes: Some(9), ..v1::MemoryPolicy::default() };
        let policy = v1::Policy {
            description: "support".to_owned(),
            steps: Some(steps),
            memory: Some(memory),
            ..v1::Policy::default()
        };
        let row = PolicyRecord { policy: Some(policy), revision: 3 }.encode_to_vec();
        let daily = Row::decode(row.as_slice()).unwrap().policy.unwrap();
        assert_eq!(daily, DailyPolicy { steps: Some(steps), memory: Some(memory) });
    }
}
