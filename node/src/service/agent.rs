//! AgentService.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{
    AgentResult, CreateAgent, DeleteAgent, PauseAgent, ResumeAgent, SetEnvironment, UpdateAgent,
};
use pinrail_proto::time::timestamp;
use pinrail_proto::v1;
use pinrail_proto::v1::agent_service_server::AgentService;
use pinrail_state_machine::query::{self, EventFilter};
use tonic::{Request, Response, Status};

use super::forward::slots_of;
use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, policy, validate};

/// Route changes that a status shows.
const RECENT_EVENTS: usize = 5;

#[derive(Debug)]
pub(crate) struct Agents(pub(crate) Node);

fn changed(answer: (Answer, u64)) -> Result<(AgentResult, u64), Status> {
    match answer {
        (Answer::Agent(changed), revision) => Ok((*changed, revision)),
        _ => Err(mismatch()),
    }
}

impl Agents {
    /// Adds what only the leader knows.
    async fn add_workers(
        &self,
        it: &v1::GetAgentStatusRequest,
        is_external: bool,
        bundles: &mut [v1::BundleStatus],
    ) {
        let Some(workers) = self.0.workers(&it.namespace, &it.agent_id).await else { return };
        for status in bundles {
            let id = status.bundle.as_ref().map_or("", |bundle| bundle.bundle_id.as_str());
            let (count, slots, free) = slots_of(&workers, id);
            status.workers = count;
            status.slots = slots;
            status.free_slots = free;
            status.blocked_workers = blocked(&workers, id);
            status.workers_known = true;
            let pins = status.bundle.as_ref().and_then(|bundle| bundle.open_pins.as_ref());
            status.stranded = count == 0 && !is_external && pins.is_some_and(|pins| pins.total > 0);
        }
    }
}

/// Workers of a bundle that get no steps because of what they see of its tools.
fn blocked(workers: &[v1::Worker], bundle_id: &str) -> u64 {
    let is_blocked = |worker: &&v1::Worker| {
        worker.bundle_id == bundle_id && worker.state() == v1::WorkerState::Blocked
    };
    workers.iter().filter(is_blocked).count() as u64
}

#[tonic::async_trait]
impl AgentService for Agents {
    async fn create_agent(
        &self,
        request: Request<v1::CreateAgentRequest>,
    ) -> Result<Response<v1::CreateAgentResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        policy::check(it.policy.as_ref())?;
        let kind = Kind::CreateAgent(Box::new(CreateAgent { agent, policy: it.policy }));
        let (made, revision) = changed(self.0.write(it.options, kind, timeout).await?)?;
        let AgentResult { agent, already } = made;
        Ok(Response::new(v1::CreateAgentResponse { agent, already, revision }))
    }

    async fn update_agent(
        &self,
        request: Request<v1::UpdateAgentRequest>,
    ) -> Result<Response<v1::UpdateAgentResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        policy::check(it.policy.as_ref())?;
        let kind = Kind::UpdateAgent(Box::new(UpdateAgent { agent, policy: it.policy }));
        let (made, revision) = changed(self.0.write(it.options, kind, timeout).await?)?;
        Ok(Response::new(v1::UpdateAgentResponse { agent: made.agent, revision }))
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let agent = self.0.query(it.read.as_ref(), timeout, |read| {
            query::agent(read, &it.namespace, &it.agent_id)
        });
        let (agent, at) = agent.await?;
        Ok(Response::new(v1::GetAgentResponse { agent: Some(agent), revision: at.revision }))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::namespace(&it.namespace)?;
        let page = self.0.query(it.read.as_ref(), timeout, |read| {
            query::agents(read, &it.namespace, it.page_size, &it.page_token)
        });
        let ((agents, next_page_token), at) = page.await?;
        let revision = at.revision;
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token, revision }))
    }

    async fn delete_agent(
        &self,
        request: Request<v1::DeleteAgentRequest>,
    ) -> Result<Response<v1::DeleteAgentResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let kind = Kind::DeleteAgent(DeleteAgent { agent });
        let (_, revision) = self.0.write(it.options, kind, timeout).await?;
        Ok(Response::new(v1::DeleteAgentResponse { revision }))
    }

    async fn pause_agent(
        &self,
        request: Request<v1::PauseAgentRequest>,
    ) -> Result<Response<v1::PauseAgentResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle_or_empty(&it.bundle_id)?;
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let pause = PauseAgent { agent, bundle_id: it.bundle_id, reject: it.reject };
        let written = self.0.write(it.options, Kind::PauseAgent(pause), timeout).await?;
        let (made, revision) = changed(written)?;
        Ok(Response::new(v1::PauseAgentResponse { agent: made.agent, revision }))
    }

    async fn resume_agent(
        &self,
        request: Request<v1::ResumeAgentRequest>,
    ) -> Result<Response<v1::ResumeAgentResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle_or_empty(&it.bundle_id)?;
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let resume = ResumeAgent { agent, bundle_id: it.bundle_id };
        let written = self.0.write(it.options, Kind::ResumeAgent(resume), timeout).await?;
        let (made, revision) = changed(written)?;
        Ok(Response::new(v1::ResumeAgentResponse { agent: made.agent, revision }))
    }

    async fn get_agent_status(
        &self,
        request: Request<v1::GetAgentStatusRequest>,
    ) -> Result<Response<v1::GetAgentStatusResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let namespace = if it.namespace.is_empty() { "default" } else { &it.namespace };
        let filter = EventFilter {
            namespace: namespace.to_owned(),
            agent_id: it.agent_id.clone(),
            type_: "route.".to_owned(),
            newest_first: true,
            ..EventFilter::default()
        };
        let now_ms = self.0.replica.cluster_time_ms();
        let status = self.0.query(it.read.as_ref(), timeout, |read| {
            let agent = query::agent(read, &it.namespace, &it.agent_id)?;
            let bundles = query::bundle_statuses(read, &it.namespace, &it.agent_id, now_ms)?;
            let (events, _) = query::events(read, &filter, RECENT_EVENTS)?;
            let number = query::agent_number(read, &it.namespace, &it.agent_id)?;
            let signals = query::signal_watches(read, number, now_ms)?;
            let release = query::release_under_way(read, &it.namespace, &it.agent_id)?;
            Ok((agent, bundles, events, signals, release))
        });
        let ((agent, mut bundles, recent_events, signals, release), at) = status.await?;
        let runs = agent.policy.as_ref().and_then(|policy| policy.runs.as_ref());
        let is_external = runs.is_some_and(|runs| runs.execution() == v1::Execution::External);
        self.add_workers(&it, is_external, &mut bundles).await;
        Ok(Response::new(v1::GetAgentStatusResponse {
            agent: Some(agent),
            bundles,
            recent_events,
            revision: at.revision,
            cluster_time: timestamp(at.now_ms),
            signals,
            release,
        }))
    }

    async fn set_environment(
        &self,
        request: Request<v1::SetEnvironmentRequest>,
    ) -> Result<Response<v1::SetEnvironmentResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        validate::bundle(&it.bundle_id)?;
        let kind = Kind::SetEnvironment(SetEnvironment {
            agent: agent_ref(&it.namespace, &it.agent_id)?,
            bundle_id: it.bundle_id,
            endpoint: it.endpoint,
        });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Environment(environment), revision) => {
                let environment = Some(environment);
                Ok(Response::new(v1::SetEnvironmentResponse { environment, revision }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn list_environments(
        &self,
        request: Request<v1::ListEnvironmentsRequest>,
    ) -> Result<Response<v1::ListEnvironmentsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        validate::bundle_or_empty(&it.bundle_id)?;
        let environments = self.0.query(it.read.as_ref(), timeout, |read| {
            query::environments(read, &it.namespace, &it.agent_id, &it.bundle_id)
        });
        let (environments, at) = environments.await?;
        Ok(Response::new(v1::ListEnvironmentsResponse { environments, revision: at.revision }))
    }
}
