//! SignalService: how a candidate does beside the bundle that it replaces, and what people say about it.

use pinrail_proto::log::command::Kind;
use pinrail_proto::log::outcome::Result as Answer;
use pinrail_proto::log::{AckSignal, FiringResult, MuteSignal};
use pinrail_proto::v1;
use pinrail_proto::v1::signal_service_server::SignalService;
use pinrail_state_machine::query;
use tonic::{Request, Response, Status};

use super::read::timeout_of;
use super::write::{agent_ref, mismatch};
use super::{Node, validate};

#[derive(Debug)]
pub(crate) struct Signals(pub(crate) Node);

#[tonic::async_trait]
impl SignalService for Signals {
    async fn get_signals(
        &self,
        request: Request<v1::GetSignalsRequest>,
    ) -> Result<Response<v1::GetSignalsResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        agent_ref(&it.namespace, &it.agent_id)?;
        let now_ms = self.0.replica.cluster_time_ms();
        let signals = self.0.query(it.read.as_ref(), timeout, |read| {
            query::signals(read, &it.namespace, &it.agent_id, &it.release_id, now_ms)
        });
        Ok(Response::new(signals.await?.0))
    }

    async fn ack_signal(
        &self,
        request: Request<v1::AckSignalRequest>,
    ) -> Result<Response<v1::AckSignalResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let kind = Kind::AckSignal(AckSignal { agent, signal: it.signal });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::Firing(FiringResult { firing, already }), revision) => {
                Ok(Response::new(v1::AckSignalResponse { firing, already, revision }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn mute_signal(
        &self,
        request: Request<v1::MuteSignalRequest>,
    ) -> Result<Response<v1::MuteSignalResponse>, Status> {
        let timeout = timeout_of(&request);
        let it = request.into_inner();
        let agent = agent_ref(&it.namespace, &it.agent_id)?;
        let span_ms = validate::optional("span", it.span.as_ref())?;
        let kind = Kind::MuteSignal(MuteSignal { agent, signal: it.signal, span_ms });
        match self.0.write(it.options, kind, timeout).await? {
            (Answer::MuteSignal(answer), revision) => {
                Ok(Response::new(v1::MuteSignalResponse { revision, ..answer }))
            }
            _ => Err(mismatch()),
        }
    }
}
