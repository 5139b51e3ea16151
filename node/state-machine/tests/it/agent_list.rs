//! A page of agents fits an answer, however large their policies are.

use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::{limits, log, v1};
use pinrail_state_machine::query;
use prost::Message as _;

use crate::replica::{Replica, agent};

/// Almost as large as a policy may be.
fn large() -> v1::Policy {
    let case = |at: usize| v1::SmokeCase {
        name: format!("c{at}"),
        schema: "x".repeat(limits::SMOKE_SCHEMA_BYTES),
        ..v1::SmokeCase::default()
    };
    let cases = (0..7).map(case).collect();
    let smoke = v1::SmokeGate { cases, ..v1::SmokeGate::default() };
    let gates = v1::GatesPolicy { smoke: Some(smoke), ..v1::GatesPolicy::default() };
    v1::Policy { gates: Some(gates), ..v1::Policy::default() }
}

#[test]
fn a_page_of_large_policies_is_short_and_its_token_goes_on() {
    let mut replica = Replica::formed();
    let names: Vec<_> = (10..25).map(|n| format!("a{n}")).collect();
    for name in &names {
        let agent = agent(name);
        replica.must(Command::CreateAgent(Box::new(log::CreateAgent {
            agent,
            policy: Some(large()),
        })));
    }
    let (mut listed, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (agents, next_page_token) = query::agents(replica.read(), "", 0, &token).unwrap();
        listed.extend(agents.iter().map(|agent| agent.agent_id.clone()));
        pages += 1;
        token.clone_from(&next_page_token);
        let answer = v1::ListAgentsResponse { agents, next_page_token, revision: 1 };
        assert!(answer.encoded_len() < limits::API_MESSAGE_BYTES);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((listed, pages), (names, 3));
}
