//! Executions of agents: start, read, wait, watch, end.

use pinrail_proto::v1;
use pinrail_proto::v1::run_service_client::RunServiceClient;
use tracing::Instrument as _;

use crate::client::Client;
use crate::error::Result;
use crate::retry::Repeat;
use crate::service::resume::Resumed;
use crate::service::{methods, open, send};
use crate::trace;

/// `RunService`.
#[derive(Debug, Clone, Copy)]
pub struct Runs<'c> {
    pub(super) client: &'c Client,
}

methods! { Runs, RunServiceClient:
    /// One run with its input and output.
    read get_run as get(GetRunRequest) -> GetRunResponse;
    /// A page of runs, without inputs and outputs.
    read list_runs as list(ListRunsRequest) -> ListRunsResponse;
    /// A page of a run's steps.
    read list_steps as steps(ListStepsRequest) -> ListStepsResponse;
    /// A page of how the branches of a fan-out ended.
    read list_branches as branches(ListBranchesRequest) -> ListBranchesResponse;
    /// The run, its bundle, the one before it, and what differs.
    read explain_run as explain(ExplainRunRequest) -> ExplainRunResponse;
    /// What an agent's runs used and cost.
    read get_costs as costs(GetCostsRequest) -> GetCostsResponse;
    /// Asks a run to end; one that is over stays as it is.
    again cancel_run as cancel(CancelRunRequest) -> CancelRunResponse by run_id;
    /// Lets a paused run go on: its dead step, or from the beginning when it was held from a restart.
    write retry_run as retry(RetryRunRequest) -> RetryRunResponse;
    /// The brake of one run; one that is paused stays so.
    again pause_run as pause(PauseRunRequest) -> PauseRunResponse by run_id;
    /// Lets a run go on that somebody paused.
    write resume_run as resume(ResumeRunRequest) -> ResumeRunResponse;
    /// Moves a run that declared itself repinnable to another bundle, at once or when its held steps are over.
    again repin_run as repin(RepinRunRequest) -> RepinRunResponse by run_id;
    /// Ends the run's wait for a signal, or leaves it there for a later wait.
    write signal_run as signal(SignalRunRequest) -> SignalRunResponse;
    /// Says how good the answer of a run was.
    write score_run as score(ScoreRunRequest) -> ScoreRunResponse;
    /// Ends an external run; the first call wins.
    again finish_run as finish(FinishRunRequest) -> FinishRunResponse by run_id;
    /// Says that an external run is alive.
    again keep_run as keep(KeepRunRequest) -> KeepRunResponse by run_id;
}

impl Runs<'_> {
    /// Starts a run. Without an id it gets one, so that a repeat never starts another run. The run's steps become part of the
    /// caller's trace, or of the one that the request names. With `wait` the member holds the call for up to that, at most 60 s, and
    /// answers with the result if the run ends by then; the client's timeout comes on top.
    ///
    /// # Errors
    /// Those of [`crate::Error`]; `Unknown` carries the run id to ask again with.
    pub async fn start(&self, request: v1::StartRunRequest) -> Result<v1::StartRunResponse> {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        self.client.sign(&mut request.options);
        if request.run_id.is_empty() {
            request.run_id =
                self.client.with_namespace(&request.namespace).new_run_id(&request.agent_id);
        }
        let span = trace::start(&request);
        if let Some(parent) = trace::parent(&span) {
            request.trace_parent = parent.to_string();
        }
        let call = self.client.call_for(Repeat::Safe, request.run_id.clone());
        let call = call.held(request.wait.as_ref());
        let sent = async { send!(self.client, call, RunServiceClient::start_run, request) };
        let result = sent.instrument(span.clone()).await;
        match &result {
            Ok(answer) => trace::started(&span, answer),
            Err(error) => trace::failed(&span, error.reason()),
        }
        result
    }

    /// State and result; the member holds the call for up to `wait`, at most 60 s. The client's timeout comes on top.
    ///
    /// # Errors
    /// Those of [`crate::Error`].
    pub async fn result(&self, request: v1::GetResultRequest) -> Result<v1::GetResultResponse> {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        let call = self.client.call_for(Repeat::Read, String::new());
        let call = call.held(request.wait.as_ref());
        send!(self.client, call, RunServiceClient::get_result, request)
    }

    /// Follows a run until it is over; resumes at another member where it stopped.
    #[must_use]
    pub fn watch(&self, request: v1::WatchRunRequest) -> RunWatch {
        let mut request = request;
        self.client.namespace_or_default(&mut request.namespace);
        RunWatch { stream: Resumed::new(self.client, request), over: false }
    }
}

/// The changes of one run.
#[derive(Debug)]
pub struct RunWatch {
    stream: Resumed<v1::WatchRunRequest, v1::WatchRunResponse>,
    over: bool,
}

impl RunWatch {
    /// The next change; nothing after the run's end.
    ///
    /// # Errors
    /// A refusal, or that no member answers for a whole timeout.
    pub async fn next(&mut self) -> Result<Option<v1::WatchRunResponse>> {
        if self.over {
            return Ok(None);
        }
        let change = self.stream.next(open!(RunServiceClient::watch_run)).await?;
        if change.run.is_some() {
            self.stream.request.from_revision = change.revision;
        }
        self.stream.request.after = change.place.or(self.stream.request.after);
        self.over = change.closed;
        Ok(Some(change))
    }
}
