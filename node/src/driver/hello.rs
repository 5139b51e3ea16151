//! Judges what a worker says of itself before it gets any work: the agent and the bundle exist, and it was built from
//! the code that the bundle names.

use std::sync::Arc;
use std::time::Duration;

use pinrail_proto::log::Rejection;
use pinrail_proto::{id, limits, reason, time, v1};
use pinrail_state_machine::outcome::{Stop, reject};
use pinrail_state_machine::query;

use super::OpenError;
use super::drift::{self, Tools};
use super::queues::Profile;
use super::session::{Introduction, SLOTS};
use super::state::ask;
use crate::raft::{ReadError, Replica};

/// A lease when neither agent nor bundle says.
const LEASE_MS: u64 = 30_000;
/// Names of steps that a worker may list.
const STEPS: usize = 1_000;
/// Share of the replies of tools that are checked when the policy does not say, in thousandths.
const ALL: u32 = 1_000;

/// Checks an introduction and answers it.
///
/// # Errors
/// `INVALID_ID`, `…_NOT_FOUND`, `BUNDLE_MISMATCH`, or why the state could not be read.
pub(crate) fn check(
    replica: &Replica,
    hello: &v1::WorkerHello,
    node: &str,
) -> Result<(Introduction, Tools, v1::Welcome), OpenError> {
    check_names(hello).map_err(OpenError::Refused)?;
    let namespace = if hello.namespace.is_empty() { "default" } else { &hello.namespace };
    let (number, agent, bundle, known, revision, usage_at_once) = ask(replica, |read| {
        let agent = query::agent(read, namespace, &hello.agent_id)?;
        let bundle = query::bundle(read, namespace, &hello.agent_id, &hello.bundle_id)?;
        let number = query::agent_number(read, namespace, &hello.agent_id)?;
        let known = query::known_schemas(read, number, &hello.bundle_id)?;
        let revision = query::position(read)?.revision;
        Ok((number, agent, bundle, known, revision, query::usage_comes_at_once(read)?))
    })
    .map_err(|error| match error {
        ReadError::Rejected(rejection) => OpenError::Refused(rejection),
        other => OpenError::Read(other),
    })?;
    let policy = agent.policy.unwrap_or_default();
    let manifest = bundle.manifest.clone().unwrap_or_default();
    let tools = Tools::of(&manifest, &hello.tools, &known.unwrap_or_default());
    let verified = check_code(&hello.code, &manifest, policy.require_code)
        .map_err(|rejection| OpenError::Refused(*rejection))?;
    let (lease, heartbeat) = lease_times(&policy, &manifest);
    let intro = Introduction {
        agent: number,
        namespace: namespace.to_owned(),
        agent_id: hello.agent_id.clone(),
        bundle_id: hello.bundle_id.clone(),
        worker_id: hello.worker_id.clone(),
        code: hello.code.clone(),
        verified,
        profile: Arc::new(Profile {
            worker_id: hello.worker_id.clone(),
            serves: hello.steps.iter().cloned().collect(),
            shadow_safe: hello.shadow_safe,
        }),
        slots: hello.slots.min(SLOTS),
        version: hello.version.clone(),
        node: node.to_owned(),
        lease: Duration::from_millis(lease),
        heartbeat: Duration::from_millis(heartbeat),
    };
    let welcome = v1::Welcome {
        lease: Some(time::duration(lease)),
        heartbeat_interval: Some(time::duration(heartbeat)),
        verified,
        bundle: Some(v1::Bundle { tool_digests: drift::digests(&manifest), ..bundle }),
        revision,
        sample_permille: policy.drift.as_ref().map_or(ALL, v1::DriftPolicy::sample_permille),
        usage_at_once,
    };
    Ok((intro, tools, welcome))
}

fn check_names(hello: &v1::WorkerHello) -> Result<(), Rejection> {
    let names = || {
        id::check_name("agent", &hello.agent_id)?;
        id::check_name("bundle", &hello.bundle_id)?;
        id::check_token("worker id", &hello.worker_id)?;
        hello.steps.iter().try_for_each(|step| id::check_name("step", step))
    };
    names().map_err(|error: id::IdError| rejection(reason::INVALID_ID, error.to_string()))?;
    if hello.tools.len() > limits::TOOLS_SEEN {
        let rule = format!("a worker sees at most {} tools", limits::TOOLS_SEEN);
        return Err(rejection(reason::INVALID_REQUEST, rule));
    }
    if hello.slots == 0 || hello.steps.len() > STEPS {
        let rule = format!("a worker has 1 to {SLOTS} slots and lists at most {STEPS} steps");
        return Err(rejection(reason::INVALID_REQUEST, rule));
    }
    Ok(())
}

/// Whether the worker's code is known to be the bundle's.
fn check_code(
    code: &str,
    manifest: &v1::BundleManifest,
    required: bool,
) -> Result<bool, Box<Rejection>> {
    let part = manifest.code.clone().unwrap_or_default();
    if code.is_empty() {
        if required {
            let message = "the agent's policy wants workers to say what they were built from";
            return Err(Box::new(rejection(reason::BUNDLE_MISMATCH, message.to_owned())));
        }
        return Ok(false);
    }
    if code == part.git_commit || code == part.image {
        return Ok(true);
    }
    let named = if part.git_commit.is_empty() { part.image } else { part.git_commit };
    let message = format!("the bundle names code {named}, the worker was built from {code}");
    let stop = reject(reason::BUNDLE_MISMATCH, message)
        .with("bundle_code", &named)
        .with("worker_code", code);
    Err(Box::new(into_rejection(stop)))
}

/// Lease and heartbeat interval: a third of the shortest lease that a step of the bundle has.
fn lease_times(policy: &v1::Policy, manifest: &v1::BundleManifest) -> (u64, u64) {
    let of =
        |steps: &v1::StepPolicy| steps.lease.as_ref().and_then(time::millis).filter(|ms| *ms > 0);
    let lease = policy.steps.as_ref().and_then(of).unwrap_or(LEASE_MS);
    let shortest = manifest.steps.values().filter_map(of).fold(lease, u64::min);
    (lease, (shortest / 3).max(1))
}

pub(crate) fn rejection(reason: reason::Reason, message: String) -> Rejection {
    into_rejection(reject(reason, message))
}

fn into_rejection(stop: Stop) -> Rejection {
    match stop {
        Stop::Rejected(rejection) => rejection,
        Stop::Fault(fault) => Rejection { message: fault.to_string(), ..Rejection::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(git_commit: &str, image: &str) -> v1::BundleManifest {
        let code = v1::CodePart { git_commit: git_commit.into(), image: image.into() };
        v1::BundleManifest { code: Some(code), ..Default::default() }
    }

    #[test]
    fn a_worker_of_other_code_is_refused_and_one_without_is_unverified() {
        let bundle = manifest("abc", "");
        assert_eq!(check_code("abc", &bundle, true).ok(), Some(true));
        assert_eq!(check_code("", &bundle, false).ok(), Some(false));
        let other = check_code("abd", &bundle, false).expect_err("it is other code");
        assert_eq!(other.reason, "BUNDLE_MISMATCH");
        assert_eq!(other.metadata["worker_code"], "abd");
        assert!(check_code("", &bundle, true).is_err(), "the policy wants to know");
        assert_eq!(
            check_code("img@sha256:1", &manifest("", "img@sha256:1"), true).ok(),
            Some(true)
        );
    }

    #[test]
    fn heartbeats_come_at_a_third_of_the_shortest_lease() {
        let lease = |ms| v1::StepPolicy { lease: Some(time::duration(ms)), ..Default::default() };
        let policy = v1::Policy { steps: Some(lease(30_000)), ..Default::default() };
        let mut bundle = manifest("abc", "");
        assert_eq!(lease_times(&policy, &bundle), (30_000, 10_000));
        bundle.steps.insert("quick".into(), lease(3_000));
        assert_eq!(lease_times(&policy, &bundle), (30_000, 1_000));
        assert_eq!(lease_times(&v1::Policy::default(), &manifest("a", "")), (30_000, 10_000));
    }

    #[test]
    fn bad_names_are_refused_before_anything_is_read() {
        let hello = v1::WorkerHello {
            agent_id: "a".into(),
            bundle_id: "v1".into(),
            worker_id: "w".into(),
            slots: 1,
            ..Default::default()
        };
        assert!(check_names(&hello).is_ok());
        for bad in [
            v1::WorkerHello { agent_id: "a b".into(), ..hello.clone() },
            v1::WorkerHello { worker_id: String::new(), ..hello.clone() },
            v1::WorkerHello { slots: 0, ..hello.clone() },
            v1::WorkerHello { steps: vec!["\n".into()], ..hello.clone() },
        ] {
            assert!(check_names(&bad).is_err(), "{bad:?}");
        }
    }
}
