//! One call, one RPC, one outcome. What is not a definite answer of the server is of unknown fate.

use std::time::Duration;

use pinrail_proto::v1;
use tonic::Status;
use tonic::transport::Channel;

use super::{Stubs, convert, describe, reason, request};
use crate::history::{Answer, Call, Outcome, Version};

/// Asks once. The request id goes with writes that need one to be asked again safely.
pub async fn perform(
    channel: &Channel,
    agent: &str,
    call: &Call,
    request_id: &str,
    timeout: Duration,
) -> Outcome {
    let asked = Asked {
        stubs: Stubs::new(channel),
        agent: agent.to_owned(),
        request_id: request_id.to_owned(),
        timeout,
    };
    // The server is told the deadline; a frozen one does not keep it.
    match tokio::time::timeout(timeout + Duration::from_millis(250), asked.dispatch(call)).await {
        Ok(Ok((revision, answer))) => Outcome::Ok { revision, answer },
        Ok(Err(status)) => outcome(&status),
        Err(_) => Outcome::Unknown { why: "no answer in time".to_owned() },
    }
}

/// A refusal of ours is definite, except for the one that says otherwise; all else may have happened.
fn outcome(status: &Status) -> Outcome {
    match reason(status) {
        Some(reason) if reason != "OUTCOME_UNKNOWN" => {
            Outcome::Rejected { reason, message: status.message().to_owned() }
        }
        Some(_) | None => Outcome::Unknown { why: describe(status) },
    }
}

struct Asked {
    stubs: Stubs,
    agent: String,
    request_id: String,
    timeout: Duration,
}

type Answered = Result<(u64, Answer), Status>;

impl Asked {
    async fn dispatch(mut self, call: &Call) -> Answered {
        match call {
            Call::StartRun { run_id, input, bundle_id } => {
                self.start_run(run_id, input, bundle_id).await
            }
            Call::FinishRun { run_id, output } => self.finish_run(run_id, output).await,
            Call::CancelRun { run_id } => self.cancel_run(run_id).await,
            Call::LookupPin { run_id } => self.look_up_pin(run_id).await,
            Call::ResolveRoute { local } => self.resolve_route(*local).await,
            Call::ReadRoute => self.read_route().await,
            Call::Switch { bundle_id } => self.switch(bundle_id).await,
            Call::Rollback { from_bundle_id, in_flight } => {
                self.roll_back(from_bundle_id, convert::in_flight(*in_flight)).await
            }
            Call::PutMemory { scope, key, value, expected } => {
                let scope = convert::scope(scope);
                match value {
                    Some(value) => self.put(scope, key, value, *expected).await,
                    None => self.delete(scope, key, *expected).await,
                }
            }
            Call::GetMemory { scope, key, at_revision, local } => {
                self.get(convert::scope(scope), key, *at_revision, *local).await
            }
            Call::GetDrain { bundle_id, local } => self.drain(bundle_id, *local).await,
        }
    }

    fn options(&self) -> Option<v1::WriteOptions> {
        Some(v1::WriteOptions {
            request_id: self.request_id.clone(),
            reason: "chaos".to_owned(),
            actor: "chaos".to_owned(),
            ..v1::WriteOptions::default()
        })
    }

    async fn start_run(&mut self, run_id: &str, input: &str, bundle_id: &str) -> Answered {
        let message = v1::StartRunRequest {
            agent_id: self.agent.clone(),
            run_id: run_id.to_owned(),
            input: Some(convert::payload(input)),
            bundle_id: bundle_id.to_owned(),
            ..v1::StartRunRequest::default()
        };
        let answer = self.stubs.runs.start_run(request(message, self.timeout)).await?.into_inner();
        let mut pin = convert::pin(answer.pin.as_ref());
        if pin.bundle_id.is_empty() {
            pin.bundle_id = answer.bundle_id;
        }
        Ok((answer.revision, Answer::Started { pin, already: answer.already }))
    }

    async fn finish_run(&mut self, run_id: &str, output: &str) -> Answered {
        let message = v1::FinishRunRequest {
            agent_id: self.agent.clone(),
            run_id: run_id.to_owned(),
            outcome: v1::Outcome::Completed.into(),
            output: Some(convert::payload(output)),
            ..v1::FinishRunRequest::default()
        };
        let answer = self.stubs.runs.finish_run(request(message, self.timeout)).await?.into_inner();
        let state = convert::run_state(answer.state);
        Ok((answer.revision, Answer::Ended { state, already: answer.already }))
    }

    async fn cancel_run(&mut self, run_id: &str) -> Answered {
        let message = v1::CancelRunRequest {
            agent_id: self.agent.clone(),
            run_id: run_id.to_owned(),
            ..v1::CancelRunRequest::default()
        };
        let answer = self.stubs.runs.cancel_run(request(message, self.timeout)).await?.into_inner();
        let state = convert::run_state(answer.state);
        Ok((answer.revision, Answer::Ended { state, already: answer.already }))
    }

    async fn look_up_pin(&mut self, run_id: &str) -> Answered {
        let message = v1::LookupPinRequest {
            agent_id: self.agent.clone(),
            run_id: run_id.to_owned(),
            ..v1::LookupPinRequest::default()
        };
        let answer = self.stubs.pins.lookup_pin(request(message, self.timeout)).await?.into_inner();
        let pin = convert::pin(answer.pin.as_ref());
        Ok((answer.revision, Answer::Pinned { pin, open: answer.open }))
    }

    async fn resolve_route(&mut self, local: bool) -> Answered {
        let message = v1::ResolveRouteRequest {
            agent_id: self.agent.clone(),
            read: convert::read(local),
            ..v1::ResolveRouteRequest::default()
        };
        let answer =
            self.stubs.pins.resolve_route(request(message, self.timeout)).await?.into_inner();
        let (bundle_id, epoch) = (answer.bundle_id, answer.epoch);
        Ok((answer.revision, Answer::Route { bundle_id, epoch, changed_revision: 0 }))
    }

    async fn read_route(&mut self) -> Answered {
        let message =
            v1::GetAgentRequest { agent_id: self.agent.clone(), ..v1::GetAgentRequest::default() };
        let answer =
            self.stubs.agents.get_agent(request(message, self.timeout)).await?.into_inner();
        let route = answer.agent.and_then(|agent| agent.route).unwrap_or_default();
        let (bundle_id, epoch) = (route.live_bundle_id, route.epoch);
        Ok((answer.revision, Answer::Route { bundle_id, epoch, changed_revision: route.revision }))
    }

    async fn switch(&mut self, bundle_id: &str) -> Answered {
        let message = v1::SwitchRequest {
            agent_id: self.agent.clone(),
            bundle_id: bundle_id.to_owned(),
            // A bundle that was rolled back may go live again: the schedule wants it.
            force: true,
            options: self.options(),
            ..v1::SwitchRequest::default()
        };
        let it = self.stubs.releases.switch(request(message, self.timeout)).await?.into_inner();
        let drain = it.drain.unwrap_or_default();
        let answer = Answer::Moved {
            from: it.from_bundle_id,
            to: it.to_bundle_id,
            epoch: it.epoch,
            already: it.already,
            drain_deadline_ms: convert::ms(drain.deadline.as_ref()),
            drained_by_ms: convert::ms(drain.drained_by.as_ref()),
        };
        Ok((it.revision, answer))
    }

    async fn roll_back(&mut self, from: &str, in_flight: v1::InFlight) -> Answered {
        let message = v1::RollbackRequest {
            agent_id: self.agent.clone(),
            from_bundle_id: from.to_owned(),
            in_flight: in_flight.into(),
            options: self.options(),
            ..v1::RollbackRequest::default()
        };
        let it = self.stubs.releases.rollback(request(message, self.timeout)).await?.into_inner();
        let drain = it.drain.unwrap_or_default();
        let answer = Answer::Moved {
            from: it.from_bundle_id,
            to: it.to_bundle_id,
            epoch: it.epoch,
            already: it.already,
            drain_deadline_ms: convert::ms(drain.deadline.as_ref()),
            drained_by_ms: convert::ms(drain.drained_by.as_ref()),
        };
        Ok((it.revision, answer))
    }

    async fn put(
        &mut self,
        scope: v1::MemoryScope,
        key: &str,
        value: &str,
        expected: Option<u64>,
    ) -> Answered {
        let message = v1::PutMemoryRequest {
            agent_id: self.agent.clone(),
            scope: Some(scope),
            key: key.to_owned(),
            value: Some(convert::payload(value)),
            expected_key_revision: expected,
            options: self.options(),
            ..v1::PutMemoryRequest::default()
        };
        let answer =
            self.stubs.memory.put_memory(request(message, self.timeout)).await?.into_inner();
        let version = answer.version.unwrap_or_default();
        let (key_revision, layer) = (version.revision, version.layer);
        Ok((answer.revision, Answer::Wrote { key_revision, layer }))
    }

    async fn delete(
        &mut self,
        scope: v1::MemoryScope,
        key: &str,
        expected: Option<u64>,
    ) -> Answered {
        let message = v1::DeleteMemoryRequest {
            agent_id: self.agent.clone(),
            scope: Some(scope),
            key: key.to_owned(),
            expected_key_revision: expected,
            options: self.options(),
            ..v1::DeleteMemoryRequest::default()
        };
        let answer =
            self.stubs.memory.delete_memory(request(message, self.timeout)).await?.into_inner();
        Ok((answer.revision, Answer::Deleted { deleted: answer.deleted }))
    }

    async fn get(
        &mut self,
        scope: v1::MemoryScope,
        key: &str,
        at_revision: u64,
        local: bool,
    ) -> Answered {
        let message = v1::GetMemoryRequest {
            agent_id: self.agent.clone(),
            scope: Some(scope),
            key: key.to_owned(),
            at_revision,
            read: convert::read(local),
            ..v1::GetMemoryRequest::default()
        };
        let answer =
            self.stubs.memory.get_memory(request(message, self.timeout)).await?.into_inner();
        let version = answer.version.filter(|version| answer.found && !version.deleted);
        let version = version.map(|version| Version {
            value: convert::text(version.value.as_ref()),
            revision: version.revision,
            layer: version.layer,
        });
        Ok((answer.revision, Answer::Read { version, layer: answer.layer }))
    }

    async fn drain(&mut self, bundle_id: &str, local: bool) -> Answered {
        let message = v1::GetDrainRequest {
            agent_id: self.agent.clone(),
            bundle_id: bundle_id.to_owned(),
            read: convert::read(local),
            ..v1::GetDrainRequest::default()
        };
        let answer = self.stubs.pins.get_drain(request(message, self.timeout)).await?.into_inner();
        let drain = answer.drains.iter().find(|drain| drain.bundle_id == bundle_id);
        let drain = drain.cloned().unwrap_or_default();
        let facts = Answer::Drain {
            open: drain.open_pins.map_or(0, |pins| pins.total),
            deadline_ms: convert::ms(drain.deadline.as_ref()),
            drained_by_ms: convert::ms(drain.drained_by.as_ref()),
            over: drain.over,
            cluster_time_ms: convert::ms(answer.cluster_time.as_ref()),
        };
        Ok((answer.revision, facts))
    }
}
