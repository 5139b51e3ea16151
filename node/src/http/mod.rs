//! The HTTP side of a node: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever starts and stops it, which
//! answer from memory alone, so that they do when nothing else does; and the API as JSON (`api.rs`).

mod agent;
mod api;
mod body;
mod bundle;
mod call;
mod memory;
mod namespace;
mod openapi;
mod problem;
mod run;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, serve};
use futures::StreamExt as _;
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::env::{Connection, Listener};
use crate::raft::Replica;
use crate::service::Node;
use crate::telemetry;

// Gauges of the cluster as this node sees it, by node.
const LEADER: &str = "pinrail_cluster_is_leader";
const TERM: &str = "pinrail_cluster_term";
const APPLIED: &str = "pinrail_cluster_applied_index";
const LAST_LOG: &str = "pinrail_cluster_last_log_index";
const SNAPSHOT: &str = "pinrail_cluster_snapshot_index";
const MEMBERS: &str = "pinrail_cluster_members";
const REACHABLE: &str = "pinrail_cluster_members_reachable";

/// Answers until `stop`.
///
/// # Errors
/// When the listener fails for good.
pub(crate) async fn run(listener: Listener, node: Node, stop: CancellationToken) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(node.replica.clone()))
        .merge(api::router(node));
    serve(Accepts(listener), router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

/// After a connection that could not be accepted: the process may be out of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Our listeners as axum wants them.
struct Accepts(Listener);

impl serve::Listener for Accepts {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.0.incoming.next().await {
                Some(Ok(connection)) => return (connection, self.0.local_addr),
                Some(Err(error)) => {
                    tracing::debug!(%error, "an HTTP connection was not accepted");
                    sleep(ACCEPT_AGAIN).await;
                }
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr)
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: a leader is known, so that writes can be passed on.
async fn readyz(State(replica): State<Arc<Replica>>) -> impl IntoResponse {
    let leadership = replica.leadership().borrow().clone();
    match leadership.leader {
        Some(leader) => (StatusCode::OK, format!("ready: {} leads\n", leader.name)),
        None => (StatusCode::SERVICE_UNAVAILABLE, "not ready: no leader is known\n".to_owned()),
    }
}

async fn metrics(State(replica): State<Arc<Replica>>) -> impl IntoResponse {
    publish(&replica);
    match telemetry::render_metrics() {
        Some(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
            .into_response(),
        None => (StatusCode::NOT_FOUND, "another recorder has the metrics\n").into_response(),
    }
}

fn publish(replica: &Replica) {
    let status = replica.status();
    let here = replica.leadership().borrow().here;
    let reachable = status.members.iter().filter(|member| member.reachable).count();
    for (name, value) in [
        (LEADER, u64::from(here)),
        (TERM, status.term),
        (APPLIED, status.applied_index),
        (LAST_LOG, status.last_log_index),
        (SNAPSHOT, status.snapshot_index),
        (MEMBERS, status.members.len() as u64),
        (REACHABLE, reachable as u64),
    ] {
        metrics::gauge!(name, "node" => status.node.clone()).set(value as f64);
    }
}
