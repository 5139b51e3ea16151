//! Agents, their policy, pause and environments.

use pinrail_proto::v1;
use pinrail_proto::v1::agent_service_client::AgentServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `AgentService`.
#[derive(Debug, Clone, Copy)]
pub struct Agents<'c> {
    pub(super) client: &'c Client,
}

methods! { Agents, AgentServiceClient:
    /// Creates an agent with its policy; what the policy leaves out gets its default.
    write create_agent as create(CreateAgentRequest) -> CreateAgentResponse;
    /// Replaces the policy.
    write update_agent as update(UpdateAgentRequest) -> UpdateAgentResponse;
    /// One agent with its policy and route.
    read get_agent as get(GetAgentRequest) -> GetAgentResponse;
    /// A page of agents.
    read list_agents as list(ListAgentsRequest) -> ListAgentsResponse;
    /// Deletes an agent without open runs.
    write delete_agent as delete(DeleteAgentRequest) -> DeleteAgentResponse;
    /// No new leases of the agent, or of one bundle.
    write pause_agent as pause(PauseAgentRequest) -> PauseAgentResponse;
    /// Ends a pause.
    write resume_agent as resume(ResumeAgentRequest) -> ResumeAgentResponse;
    /// Route, bundles, workers and the last changes, in one answer.
    read get_agent_status as status(GetAgentStatusRequest) -> GetAgentStatusResponse;
    /// Sets the endpoint of a bundle's compute.
    write set_environment as set_environment(SetEnvironmentRequest) -> SetEnvironmentResponse;
    /// What compute is wanted for the bundles.
    read list_environments as environments(ListEnvironmentsRequest) -> ListEnvironmentsResponse;
}
