//! The way to a cluster of several members: lazily opened channels, the leader, and calls that are repeated where that
//! is safe.
//!
//! Main type: [`Connection`]. It knows no service; `retry` says what an error means, `pool` whom to ask next. Members
//! are learned from the first that answers, and again when something failed. The pool's lock is never held across an
//! await.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pinrail_proto::limits::API_MESSAGE_BYTES;
use pinrail_proto::v1::cluster_service_client::ClusterServiceClient;
use pinrail_proto::{reason, time, v1};
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Duration, Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::error::{Error, Result, UNREACHABLE};
use crate::pool::Pool;
use crate::retry::{ATTEMPT_FIRST, ATTEMPT_LEAST, Repeat, Verdict, backoff, judge};
use crate::tcp::Connector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A member that stands still is noticed by these two: idle time before a ping, and time for its answer.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// The member is told its deadline, and gets this much longer to say what happened.
const ANSWER_SLACK: Duration = Duration::from_millis(300);
const LEARN_TIMEOUT: Duration = Duration::from_secs(1);
/// At most one look at the members in this time, and at least one in the longer one while there are calls. As long as nobody
/// has named a leader, the shorter one holds: any member passes calls on, at twice the cost.
const LEARN_PAUSE: Duration = Duration::from_millis(500);
const LEARN_AGE: Duration = Duration::from_secs(15);

/// Opens a channel to `host:port`, lazily. The simulation brings its own.
pub type Dial = Arc<dyn Fn(&str) -> Result<Channel> + Send + Sync>;
/// Is told what a person who waits may want to know.
pub type OnNotice = Arc<dyn Fn(&Notice) + Send + Sync>;

/// What happened on the way to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A member could not be reached or did not answer; another one is asked.
    Unreachable {
        /// `host:port`.
        endpoint: String,
        /// Why.
        message: String,
    },
    /// The call is repeated after this error.
    Repeating {
        /// Why.
        error: Error,
    },
}

/// How one call wants to be made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) repeat: Repeat,
    /// What to ask again with.
    pub(crate) request_id: String,
    /// With all repeats.
    pub(crate) timeout: Duration,
    /// How long the member holds the call by design.
    pub(crate) hold: Duration,
    pub(crate) prefer_leader: bool,
}

impl Call {
    /// The same, held by the member for up to `wait`, which comes on top of what it may take.
    pub(crate) fn held(self, wait: Option<&prost_types::Duration>) -> Call {
        let hold = wait.and_then(time::millis).map(Duration::from_millis).unwrap_or_default();
        Call { hold, timeout: self.timeout + hold, ..self }
    }
}

/// Shared by everything that talks to one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Mutex<Pool>,
    dial: Dial,
    on_notice: Option<OnNotice>,
    /// Whether members are learned from those that answer.
    learn: bool,
    learned_at: Mutex<Option<Instant>>,
    learning: AtomicBool,
    rng: Mutex<StdRng>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("pool", &self.shared.pool.lock()).finish_non_exhaustive()
    }
}

/// What a connection is made of.
pub(crate) struct Parts {
    /// Normalized; at least one.
    pub(crate) endpoints: Vec<String>,
    pub(crate) dial: Option<Dial>,
    pub(crate) on_notice: Option<OnNotice>,
    pub(crate) learn: bool,
    pub(crate) seed: Option<u64>,
}

impl Connection {
    pub(crate) fn new(parts: Parts) -> Connection {
        let rng = parts.seed.map_or_else(rand::make_rng::<StdRng>, StdRng::seed_from_u64);
        Connection {
            shared: Arc::new(Shared {
                pool: Mutex::new(Pool::new(parts.endpoints)),
                dial: parts.dial.unwrap_or_else(|| Arc::new(dial)),
                on_notice: parts.on_notice,
                learn: parts.learn,
                learned_at: Mutex::new(None),
                learning: AtomicBool::new(false),
                rng: Mutex::new(rng),
            }),
        }
    }

    /// 128 random bits.
    pub(crate) fn random(&self) -> u128 {
        self.shared.rng.lock().random()
    }

    /// A wait between half of `wait` and all of it.
    pub(crate) fn jitter(&self, wait: Duration) -> Duration {
        wait.mul_f64(self.shared.rng.lock().random_range(0.5..=1.0))
    }

    /// All members that are known, `host:port`.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.shared.pool.lock().addresses()
    }

    /// Where the leader is, as far as is known.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        self.shared.pool.lock().leader().map(str::to_owned)
    }

    /// A member to ask and the channel to it.
    pub(crate) fn pick(&self, prefer_leader: bool, avoid: &[String]) -> Result<(String, Channel)> {
        let address = self.shared.pool.lock().pick(Instant::now(), prefer_leader, avoid);
        let channel = self.channel(&address)?;
        Ok((address, channel))
    }

    /// The channel to one member.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel> {
        if let Some(channel) = self.shared.pool.lock().channel(address) {
            return Ok(channel);
        }
        let channel = (self.shared.dial)(address)?;
        self.shared.pool.lock().set_channel(address, channel.clone());
        Ok(channel)
    }

    /// Remembers that the member answered.
    pub(crate) fn succeeded(&self, address: &str) {
        let patience = {
            let mut pool = self.shared.pool.lock();
            pool.succeeded(address);
            if pool.leader().is_some() { LEARN_AGE } else { LEARN_PAUSE }
        };
        let age = self.shared.learned_at.lock().map(|at| at.elapsed());
        if age.is_none_or(|age| age > patience) {
            self.learn();
        }
    }

    /// Remembers that the member did not answer.
    pub(crate) fn failed(&self, address: &str, message: &str) {
        tracing::debug!(endpoint = address, message, "member did not answer");
        self.shared.pool.lock().failed(Instant::now(), address);
        self.notify(&Notice::Unreachable {
            endpoint: address.to_owned(),
            message: message.to_owned(),
        });
        self.learn();
    }

    /// A member said that it does not lead, and perhaps who does.
    pub(crate) fn redirected(&self, leader: Option<&str>) {
        match leader.and_then(|leader| crate::config::normalize_endpoint(leader).ok()) {
            Some(leader) => self.shared.pool.lock().set_leader(Some(leader)),
            None => {
                self.shared.pool.lock().set_leader(None);
                self.learn();
            }
        }
    }

    fn notify(&self, notice: &Notice) {
        if let Some(tell) = &self.shared.on_notice {
            tell(notice);
        }
    }

    /// Makes a call, and repeats it where that is safe, until there is an answer or no more time.
    pub(crate) async fn call<Q, R, F, Fut>(&self, call: Call, request: Q, send: F) -> Result<R>
    where
        Q: Clone + Message,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<R>, Status>>,
    {
        refuse_oversize(request.encoded_len())?;
        let mut trials = Trials::new(self, call);
        loop {
            let (address, channel) = self.pick(trials.call.prefer_leader, &trials.avoid)?;
            let limit = trials.limit();
            let mut attempt = Request::new(request.clone());
            attempt.set_timeout(limit);
            match timeout(limit + ANSWER_SLACK, send(channel, attempt)).await {
                Ok(Ok(response)) => {
                    self.succeeded(&address);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => trials.failed(&address, judge(&status))?,
                Err(_) => {
                    let message = format!("{address} did not answer within {limit:?}");
                    trials.failed(&address, Verdict::Unknown { message })?;
                }
            }
            trials.wait().await?;
        }
    }

    /// Finds out who leads if nobody has said so yet: for who is going to stay where it is sent. Other calls find out on their way.
    pub(crate) async fn find_leader(&self) {
        if self.shared.learn && self.leader().is_none() {
            self.look().await;
        }
    }

    /// Looks at the members in the background; at most one look at a time, and not too often.
    fn learn(&self) {
        let pause = self.shared.learned_at.lock().is_some_and(|at| at.elapsed() < LEARN_PAUSE);
        if !self.shared.learn || pause || self.shared.learning.swap(true, Ordering::AcqRel) {
            return;
        }
        let connection = self.clone();
        tokio::spawn(async move {
            connection.look().await;
            connection.shared.learning.store(false, Ordering::Release);
        });
    }

    async fn look(&self) {
        self.learn_from_any().await;
        *self.shared.learned_at.lock() = Some(Instant::now());
    }

    async fn learn_from_any(&self) {
        let mut avoid = Vec::new();
        while avoid.len() < self.shared.pool.lock().len() {
            let Ok((address, channel)) = self.pick(true, &avoid) else { return };
            let mut stub = ClusterServiceClient::new(channel);
            let asked = stub.get_cluster_status(v1::GetClusterStatusRequest {});
            if let Ok(Ok(answer)) = timeout(LEARN_TIMEOUT, asked).await {
                self.take_in(&answer.into_inner());
                return;
            }
            avoid.push(address);
        }
    }

    fn take_in(&self, status: &v1::GetClusterStatusResponse) {
        let known = |address: &String| crate::config::normalize_endpoint(address).ok();
        let members = status.members.iter().filter_map(|member| known(&member.grpc_address));
        let members: Vec<String> = members.collect();
        let mut pool = self.shared.pool.lock();
        pool.learned(&members);
        pool.set_leader(known(&status.leader_grpc_address));
    }
}

/// The attempts of one call.
struct Trials<'c> {
    connection: &'c Connection,
    call: Call,
    deadline: Instant,
    failed: u32,
    /// Members that failed since all were asked the last time.
    avoid: Vec<String>,
    /// An earlier attempt may have been done.
    unknown: Option<String>,
    last: Option<Error>,
    /// What the cluster asked to wait.
    after: Option<Duration>,
    /// Another member may know better: no need to wait.
    at_once: bool,
}

impl<'c> Trials<'c> {
    fn new(connection: &'c Connection, call: Call) -> Trials<'c> {
        let deadline = Instant::now() + call.timeout;
        Trials {
            connection,
            call,
            deadline,
            failed: 0,
            avoid: Vec::new(),
            unknown: None,
            last: None,
            after: None,
            at_once: false,
        }
    }

    /// How long the next attempt may take.
    fn limit(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if self.call.repeat == Repeat::Once {
            return left;
        }
        // A member that stands still must leave time for those that have not been asked.
        let untried = self.connection.shared.pool.lock().len().saturating_sub(self.avoid.len());
        let share = left / u32::try_from(untried.max(1)).unwrap_or(1);
        let patience = ATTEMPT_FIRST.saturating_mul(1 << self.failed.min(4)).min(share);
        left.min(patience.max(ATTEMPT_LEAST) + self.call.hold)
    }

    /// Takes in a failed attempt; the error is the answer of the call.
    fn failed(&mut self, address: &str, verdict: Verdict) -> Result<()> {
        self.failed += 1;
        self.after = None;
        self.at_once = false;
        match verdict {
            Verdict::Refused(error) => {
                self.connection.succeeded(address);
                return Err(error);
            }
            Verdict::NotDone { error, after, leader, unreachable } => {
                if unreachable {
                    self.leave(address, &error.to_string());
                } else {
                    self.connection.redirected(leader.as_deref());
                }
                self.after = after;
                self.remember(error);
            }
            Verdict::Unknown { message } => {
                self.leave(address, &message);
                self.unknown_outcome(message)?;
            }
        }
        Ok(())
    }

    fn unknown_outcome(&mut self, message: String) -> Result<()> {
        match self.call.repeat {
            Repeat::Read => {
                self.remember(Error::Unavailable { reason: UNREACHABLE.to_owned(), message });
            }
            Repeat::Safe => self.unknown = Some(message),
            Repeat::Once => {
                let request_id = self.call.request_id.clone();
                return Err(Error::Unknown { request_id, message });
            }
        }
        Ok(())
    }

    /// Keeps what to answer when there is no more time. What a member said of the cluster ("no leader is known") says
    /// more than the silence of another one.
    fn remember(&mut self, error: Error) {
        if error.reason() != UNREACHABLE || self.last.is_none() {
            self.last = Some(error);
        }
    }

    fn leave(&mut self, address: &str, message: &str) {
        self.connection.failed(address, message);
        self.avoid.push(address.to_owned());
        if self.avoid.len() < self.connection.shared.pool.lock().len() {
            self.at_once = true;
        } else {
            self.avoid.clear();
        }
    }

    /// Waits before the next attempt; the error is the answer when there is no more time.
    async fn wait(&mut self) -> Result<()> {
        if let Some(error) = &self.last {
            self.connection.notify(&Notice::Repeating { error: error.clone() });
        }
        let wait = match self.after {
            Some(after) => after,
            None if self.at_once => Duration::ZERO,
            None => self.connection.jitter(backoff(self.failed - 1)),
        };
        if Instant::now() + wait >= self.deadline {
            return Err(self.give_up());
        }
        sleep(wait).await;
        Ok(())
    }

    /// Once an attempt's fate was unknown, only an answer can say otherwise.
    fn give_up(&mut self) -> Error {
        if let Some(message) = self.unknown.take() {
            return Error::Unknown { request_id: self.call.request_id.clone(), message };
        }
        self.last.take().unwrap_or_else(|| Error::Unavailable {
            reason: UNREACHABLE.to_owned(),
            message: format!("no answer within {:?}", self.call.timeout),
        })
    }
}

/// Says what the cluster would say. The transport breaks the stream instead, which tells nothing of the cause.
fn refuse_oversize(bytes: usize) -> Result<()> {
    if bytes <= API_MESSAGE_BYTES {
        return Ok(());
    }
    Err(Error::Rejected {
        reason: reason::LIMIT_EXCEEDED.name.to_owned(),
        code: reason::LIMIT_EXCEEDED.code,
        message: format!("the request has {bytes} bytes; at most {API_MESSAGE_BYTES} are allowed"),
        metadata: BTreeMap::new(),
        revision: 0,
    })
}

fn dial(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Error::invalid(format!("endpoint {address:?}: {error}")))?;
    Ok(channel(endpoint))
}

/// The usual channel: plain TCP without delay, opened when it is first used, and again after it broke.
#[must_use]
pub fn channel(endpoint: Endpoint) -> Channel {
    let window = u32::try_from(2 * API_MESSAGE_BYTES).unwrap_or(u32::MAX);
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window);
    endpoint.connect_with_connector_lazy(Connector::new(CONNECT_TIMEOUT))
}
