//! Where a leader thinks that a start begins is where it begins.

use pinrail_proto::log;
use pinrail_proto::log::command::Kind as Command;
use pinrail_proto::v1::RunKind;
use pinrail_state_machine::effect::Effect;
use pinrail_state_machine::query::{self, FirstStep};

use crate::replica::{Replica, agent, create_agent, create_bundle, switch};

fn start(run_id: &str) -> log::StartRun {
    log::StartRun { agent: agent("support"), run_id: run_id.to_owned(), ..log::StartRun::default() }
}

#[test]
fn a_guess_is_what_the_queue_then_says() {
    let mut replica = Replica::formed();
    replica.must(create_agent("support", false));
    replica.must(create_bundle("support", "v1"));
    replica.must(switch("support", "v1"));
    let shadow = log::StartRun { bundle_id: "v1".to_owned(), ..start("shadow") };
    for it in [
        log::StartRun { priority: 2, fairness_key: "k".to_owned(), ..start("plain") },
        log::StartRun { session: "talk".to_owned(), entry: "other".to_owned(), ..start("talk") },
        log::StartRun { kind: RunKind::Shadow.into(), ..shadow },
        log::StartRun { parent_run_id: "plain".to_owned(), ..start("plain.c") },
        log::StartRun { parent_run_id: "shadow".to_owned(), ..start("shadow.c") },
    ] {
        let guess = query::first_step(replica.read(), &it).unwrap();
        let applied = replica.apply(Command::StartRun(it));
        let queued = applied.effects.iter().find_map(|effect| match effect {
            Effect::StepReady { step, bundle_id, name, rank, .. } => Some(FirstStep {
                agent: step.agent,
                bundle_id: bundle_id.clone(),
                name: name.clone(),
                rank: rank.clone(),
            }),
            _ => None,
        });
        assert!(queued.is_some(), "{applied:?}");
        assert_eq!(guess, queued);
    }
}
