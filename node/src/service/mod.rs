//! The services of the API: one file each, called by gRPC and by HTTP. A service decodes, checks what can be checked at
//! the door, proposes or reads, and encodes. It knows no rule: those are rejections of the state machine.

mod agent;
mod audit;
mod backup;
mod bundle;
mod chunks;
mod cluster;
mod drill;
pub(crate) mod error;
mod eval;
mod event;
mod forward;
mod hook;
mod layer;
mod memory;
mod namespace;
mod pace;
mod pin;
mod policy;
mod read;
mod release;
mod report;
mod run;
mod shadow;
mod signal;
#[cfg(test)]
mod tests;
mod tool;
mod validate;
mod watch;
mod worker;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use pinrail_proto::limits::{API_ANSWER_BYTES, API_MESSAGE_BYTES};
use pinrail_proto::v1;
use tokio::sync::Semaphore;
use tonic::transport::server::Router;

use crate::config::ServerConfig;
use crate::driver::Dispatch;
use crate::raft::{Leadership, Replica};

use pace::Pace;

pub(crate) use agent::Agents;
pub(crate) use bundle::Bundles;
use drill::Drills;
pub(crate) use event::Events;
pub(crate) use memory::Memories;
pub(crate) use namespace::Namespaces;
pub(crate) use pin::Pins;
pub(crate) use release::Releases;
use report::Reports;
pub(crate) use run::Runs;
use shadow::Shadows;
pub use worker::WorkerService;

/// A connection that does not answer a ping for so long is dead.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What every service works with.
#[derive(Debug, Clone)]
pub struct Node {
    pub replica: Replica,
    pub dispatch: Dispatch,
    pub(crate) watchers: Arc<AtomicUsize>,
    pub(crate) closings: watch::Closings,
    pub(crate) looks: Arc<watch::Looks>,
    /// Room for writes of this node's callers.
    pub(crate) writes: Arc<Semaphore>,
    /// Of starts by this node's callers.
    pub(crate) starts: Arc<Pace>,
    /// Of costs.
    pub(crate) currency: Arc<str>,
}

impl Node {
    #[must_use]
    pub fn new(replica: Replica, dispatch: Dispatch, config: &ServerConfig) -> Self {
        let writes = Arc::new(Semaphore::new(write::IN_FLIGHT));
        let currency = Arc::from(config.metrics.currency.as_str());
        let starts = Arc::new(Pace::new(config.limits.runs_per_second));
        let closings = watch::Closings::start(replica.feed());
        let (watchers, looks) = (Arc::default(), Arc::default());
        Self { replica, dispatch, watchers, closings, looks, writes, starts, currency }
    }
}

macro_rules! served {
    ($node:expr, $module:ident::$server:ident, $service:expr) => {
        v1::$module::$server::new($service)
            .max_decoding_message_size(API_MESSAGE_BYTES)
            .max_encoding_message_size(API_ANSWER_BYTES)
    };
}

/// All services, health and reflection.
#[must_use]
pub fn router(
    node: Node,
) -> Router<tower::layer::util::Stack<layer::MeasureLayer, tower::layer::util::Identity>> {
    let (health_reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(node.replica.leadership(), health_reporter));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pinrail_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by this build");
    let net = Arc::clone(&node.replica.env().net);
    let api = |node: &Node| node.clone();
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .layer(layer::MeasureLayer::default())
        .add_service(health)
        .add_service(reflection)
        .add_service(served!(
            node,
            namespace_service_server::NamespaceServiceServer,
            Namespaces(api(&node))
        ))
        .add_service(served!(node, bundle_service_server::BundleServiceServer, Bundles(api(&node))))
        .add_service(served!(node, agent_service_server::AgentServiceServer, Agents(api(&node))))
        .add_service(served!(node, run_service_server::RunServiceServer, Runs(api(&node))))
        .add_service(served!(node, pin_service_server::PinServiceServer, Pins(api(&node))))
        .add_service(served!(
            node,
            release_service_server::ReleaseServiceServer,
            Releases(api(&node))
        ))
        .add_service(served!(
            node,
            signal_service_server::SignalServiceServer,
            signal::Signals(api(&node))
        ))
        .add_service(served!(node, tool_service_server::ToolServiceServer, tool::Tools(api(&node))))
        .add_service(served!(node, drill_service_server::DrillServiceServer, Drills(api(&node))))
        .add_service(served!(node, report_service_server::ReportServiceServer, Reports(api(&node))))
        .add_service(served!(node, shadow_service_server::ShadowServiceServer, Shadows(api(&node))))
        .add_service(served!(
            node,
            memory_service_server::MemoryServiceServer,
            Memories(api(&node))
        ))
        .add_service(served!(node, eval_service_server::EvalServiceServer, eval::Evals(api(&node))))
        .add_service(served!(node, event_service_server::EventServiceServer, Events(api(&node))))
        .add_service(served!(node, hook_service_server::HookServiceServer, hook::Hooks(api(&node))))
        .add_service(served!(
            node,
            audit_service_server::AuditServiceServer,
            audit::Audits(api(&node))
        ))
        .add_service(served!(
            node,
            cluster_service_server::ClusterServiceServer,
            cluster::Cluster(api(&node))
        ))
        .add_service(WorkerService::new(node, net).server())
}

/// `grpc.health.v1`: serving while a leader is known.
async fn report_health(
    mut leadership: tokio::sync::watch::Receiver<Leadership>,
    reporter: tonic_health::server::HealthReporter,
) {
    loop {
        let serving = leadership.borrow_and_update().leader.is_some();
        let status = if serving {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        reporter.set_service_status("", status).await;
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
