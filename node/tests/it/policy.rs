//! Policies at a real node: what the command line sends is what the cluster stores, and what does not compile is refused
//! at the door.

use std::path::Path;

use pinrail_client::cli::file;
use pinrail_client::{Client, Error, v1};

use crate::nodes::Nodes;

async fn stored(client: &Client, agent_id: &str, policy: Option<v1::Policy>) -> v1::Policy {
    let agent_id = agent_id.to_owned();
    let request =
        v1::CreateAgentRequest { agent_id: agent_id.clone(), policy, ..Default::default() };
    client.agents().create(request).await.unwrap();
    let request = v1::GetAgentRequest { agent_id, ..Default::default() };
    client.agents().get(request).await.unwrap().agent.unwrap().policy.unwrap()
}

#[tokio::test]
async fn the_defaults_of_the_command_line_are_those_of_the_server() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    let default = file::agent::default_policy();
    assert_eq!(stored(&client, "silent", None).await, default);
    assert_eq!(stored(&client, "said", Some(default.clone())).await, default);
    let text = "
description = 'everything that a file can say beside defaults'
[release]
hold_before = ['switch']
[gates.canary]
steps   = [{ share = '1%', hold = '10m' }, { share = '50%', hold = '1h' }]
include = { tenant = ['internal'] }
[gates.shadow]
share = ['5%']
[signals.p95_latency]
quarantine = 'rollback'
[drill]
every  = '14d'
window = 'Tue-Thu 13:00-16:00 Europe/Berlin'
[[gates.smoke.cases]]
name   = 'refund'
input  = { question = 'Where is my refund?' }
expect = { contains = ['refund'], matches = '(?i)policy', schema = { type = 'object' } }
[[hooks]]
name   = 'pager'
url    = 'https://pager.example/'
events = ['signal.*']
";
    let policy = file::agent::parse("agent.toml", text, Path::new("")).unwrap();
    assert_eq!(stored(&client, "full", Some(policy.clone())).await, policy);
    nodes.stop_all().await;
}

#[tokio::test]
async fn what_does_not_compile_is_refused_by_its_key() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    let smoke = |case: v1::SmokeCase| {
        let case = v1::SmokeCase { name: "refund".into(), ..case };
        let smoke = v1::SmokeGate { cases: vec![case], ..Default::default() };
        let gates = v1::GatesPolicy { smoke: Some(smoke), ..Default::default() };
        v1::Policy { gates: Some(gates), ..Default::default() }
    };
    let window = |window: &str| {
        let drill = v1::DrillPolicy { window: window.into(), ..Default::default() };
        v1::Policy { drill: Some(drill), ..Default::default() }
    };
    let cases = [
        (
            smoke(v1::SmokeCase { matches: "a(".into(), ..Default::default() }),
            "gates.smoke.cases[0].expect.matches of \"refund\" is no regular expression: error: unclosed group",
        ),
        (
            smoke(v1::SmokeCase { schema: "{\"type\":5}".into(), ..Default::default() }),
            "gates.smoke.cases[0].expect.schema of \"refund\" is no JSON Schema: ",
        ),
        (
            window("Tue 13:00-16:00 Europe/Atlantis"),
            "drill.window: \"Europe/Atlantis\" is no zone of the tz database",
        ),
        (
            window("Tue 13-16 UTC"),
            "drill.window is \"Tue 13-16 UTC\"; allowed: times such as 13:00-16:00 that differ",
        ),
    ];
    for (policy, expected) in cases {
        let request = v1::CreateAgentRequest {
            agent_id: "support".into(),
            policy: Some(policy),
            ..Default::default()
        };
        let error = client.agents().create(request).await.expect_err(expected);
        let Error::Rejected { reason, message, .. } = &error else { panic!("{error:?}") };
        assert_eq!(reason, "INVALID_POLICY");
        assert!(message.starts_with(expected), "{message}");
    }
    nodes.stop_all().await;
}
