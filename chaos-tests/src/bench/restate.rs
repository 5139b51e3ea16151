//! Restate: three nodes on fresh data that keep two copies of three partitions and sync every write, and the service whose steps they
//! run. Calls go to the nodes' ingresses over HTTP/2, each with a key that makes it idempotent.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use pinrail_client::bench::{Figures, Load, Operation, connections, measure, value};
use pinrail_client::connection;
use pinrail_client::payload::JSON;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service as _;
use tonic::transport::{Channel, Endpoint};

use super::folder;
use crate::cluster::free_ports;
use crate::cluster::process::{Launch, Process};
use crate::config;

const NODES: usize = 3;
/// What the peers' table of goals was measured with: the best of it on two cores.
const PARTITIONS: usize = 3;
const COPIES: usize = 2;
/// How long the nodes may take to form a cluster, and to take a call of the service at each of them.
const FORM: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(5);

/// What is measured of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// A run of one durable step until its answer.
    One,
    /// A run of ten, one after the other.
    Ten,
}

impl Call {
    /// The handler, as the service's program names it.
    fn path(self) -> &'static str {
        match self {
            Call::One => "/Steps/one",
            Call::Ten => "/Steps/ten",
        }
    }
}

/// Ports of one node.
struct Place {
    name: String,
    fabric: u16,
    ingress: u16,
    admin: u16,
}

/// Three nodes and a service.
pub(super) struct Restate {
    /// The service is the last one.
    processes: Vec<Process>,
    places: Vec<Place>,
    pub(super) version: String,
    /// Goes after the processes.
    _folder: TempDir,
}

impl Restate {
    /// Starts all of it, and waits until each node runs steps.
    pub(super) async fn start(programs: &config::Restate, out: Option<&Path>) -> Result<Self> {
        let folder = folder::fresh(out)?;
        let ports = free_ports(3 * NODES + 1)?;
        let places = ports.chunks_exact(3).enumerate().map(|(index, ports)| Place {
            name: format!("restate-{index}"),
            fabric: ports[0],
            ingress: ports[1],
            admin: ports[2],
        });
        let places: Vec<Place> = places.collect();
        let launch = |what: &str, program: &Path, args: Vec<String>| {
            Process::start(&Launch {
                what: what.to_owned(),
                program: program.to_owned(),
                args: args.into_iter().map(Into::into).collect(),
                env: Vec::new(),
                log: folder.path().join(format!("{what}.log")),
                namespace: None,
                apart: false,
            })
        };
        let mut processes = Vec::new();
        for place in &places {
            let file = folder.path().join(format!("{}.toml", place.name));
            std::fs::write(&file, settings(place, &places, folder.path()))?;
            let file = file.display().to_string();
            let args = vec!["--no-logo".to_owned(), "--config-file".to_owned(), file];
            processes.push(launch(&place.name, &programs.server, args)?);
        }
        let service = format!("127.0.0.1:{}", ports[3 * NODES]);
        processes.push(launch("restate-service", &programs.service, vec![service.clone()])?);
        let mut restate = Self { processes, places, version: String::new(), _folder: folder };
        restate.form(&service).await.context("Restate did not form a cluster")?;
        Ok(restate)
    }

    /// Registers the service, and has a step run through each node.
    async fn form(&mut self, service: &str) -> Result<()> {
        let admin = channel(self.places[0].admin)?;
        let deployment = json!({ "uri": format!("http://{service}") }).to_string();
        self.soon(&admin, Method::POST, "/deployments", &deployment).await?;
        let version = self.soon(&admin, Method::GET, "/version", "").await?;
        let version: Json = serde_json::from_slice(&version)?;
        version["version"].as_str().unwrap_or("of no version").clone_into(&mut self.version);
        for at in 0..self.places.len() {
            let ingress = channel(self.places[at].ingress)?;
            self.soon(&ingress, Method::POST, Call::One.path(), "\"is it there?\"").await?;
        }
        Ok(())
    }

    /// Asks until the answer is a good one.
    async fn soon(
        &mut self,
        channel: &Channel,
        method: Method,
        path: &str,
        body: &str,
    ) -> Result<Bytes> {
        let deadline = Instant::now() + FORM;
        loop {
            let request = request(&method, path, Bytes::from(body.to_owned()))?;
            let problem = match timeout(ANSWER, ask(channel, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(problem)) => problem,
                Err(_) => "no answer".to_owned(),
            };
            self.processes.iter_mut().try_for_each(Process::must_run)?;
            if Instant::now() > deadline {
                bail!("{method} {path} comes to {problem} for {FORM:?}");
            }
            sleep(LOOK).await;
        }
    }

    /// One measurement; the clients' connections go to all nodes in turn. What the service uses counts as the servers'.
    pub(super) async fn measure(&mut self, call: Call, load: Load) -> Result<Option<Figures>> {
        // A connection to each node at least.
        let channels: Vec<Channel> = (0..connections(load.clients).max(NODES))
            .map(|number| channel(self.places[number % NODES].ingress))
            .collect::<Result<_>>()?;
        let calls = Calls { call, channels, value: value() };
        let pids: Vec<u32> = self.processes.iter().map(Process::pid).collect();
        let figures = measure(load, Arc::new(calls), &pids, &CancellationToken::new()).await?;
        self.processes.iter_mut().try_for_each(Process::must_run)?;
        Ok(figures)
    }
}

/// What a node is started with. The first one makes the cluster; the others join it.
fn settings(place: &Place, all: &[Place], folder: &Path) -> String {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let members: Vec<String> =
        all.iter().map(|it| format!("\"http://{}/\"", address(it.fabric))).collect();
    let data: PathBuf = folder.join(&place.name);
    let mut text = format!(
        "cluster-name = \"bench\"\nnode-name = \"{}\"\nbase-dir = \"{}\"\nlisten-mode = \"tcp\"\n\
         bind-address = \"{fabric}\"\nadvertised-address = \"http://{fabric}/\"\nauto-provision = {}\n\
         default-num-partitions = {PARTITIONS}\ndefault-replication = {COPIES}\n\
         disable-telemetry = true\nlog-filter = \"warn\"\n",
        place.name,
        data.display(),
        place.name == all[0].name,
        fabric = address(place.fabric),
    );
    let _ = write!(
        text,
        "[metadata-client]\naddresses = [{}]\n[ingress]\nbind-address = \"{}\"\n[admin]\nbind-address = \"{}\"\n\
         [bifrost.local]\nrocksdb-disable-wal-fsync = false\n[log-server]\nrocksdb-disable-wal-fsync = false\n",
        members.join(", "),
        address(place.ingress),
        address(place.admin)
    );
    text
}

/// A channel as our client has them: it speaks HTTP/2 from the first byte, as Restate does too.
fn channel(port: u16) -> Result<Channel> {
    Ok(connection::channel(Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?))
}

fn request(method: &Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
    let request = Request::builder().method(method.clone()).uri(path);
    request.header(http::header::CONTENT_TYPE, JSON).body(Full::new(body))
}

/// One request and its whole answer; the error is a status or a reason.
async fn ask(channel: &Channel, request: Request<Full<Bytes>>) -> Result<Bytes, String> {
    let mut channel = channel.clone();
    let broken = |_| "CONNECTION".to_owned();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(broken)?;
    let answer = channel.call(request.map(tonic::body::Body::new)).await.map_err(broken)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|_| "CONNECTION".to_owned())?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(named(status)) }
}

fn named(status: StatusCode) -> String {
    format!("HTTP_{}", status.as_u16())
}

struct Calls {
    call: Call,
    channels: Vec<Channel>,
    value: Bytes,
}

impl Operation for Calls {
    fn perform(&self, client: usize, number: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let invalid = |_| "INVALID".to_owned();
            let mut request =
                request(&Method::POST, self.call.path(), self.value.clone()).map_err(invalid)?;
            let key = format!("bench-{number:012}");
            request.headers_mut().insert("idempotency-key", key.parse().map_err(|_| "INVALID")?);
            let answer = ask(&self.channels[client % self.channels.len()], request).await?;
            if answer == self.value { Ok(()) } else { Err("OTHER_ANSWER".to_owned()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_toml_that_syncs_and_only_the_first_node_makes_the_cluster() {
        let place = |index: u16| Place {
            name: format!("restate-{index}"),
            fabric: 5_000 + index,
            ingress: 6_000 + index,
            admin: 7_000 + index,
        };
        let all = [place(0), place(1), place(2)];
        let read = |at: usize| -> toml::Value {
            let text = settings(&all[at], &all, Path::new("/data"));
            toml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        let (first, last) = (read(0), read(2));
        assert_eq!(first["auto-provision"].as_bool(), Some(true));
        assert_eq!(last["auto-provision"].as_bool(), Some(false));
        assert_eq!(last["base-dir"].as_str(), Some("/data/restate-2"));
        assert_eq!(last["metadata-client"]["addresses"].as_array().map(Vec::len), Some(3));
        assert_eq!(last["ingress"]["bind-address"].as_str(), Some("127.0.0.1:6002"));
        assert_eq!(last["log-server"]["rocksdb-disable-wal-fsync"].as_bool(), Some(false));
    }
}
