//! A client of a Pinrail cluster: one object for all services, and the one call that most programs need.

use std::fmt;
use std::sync::Arc;

use pinrail_proto::{id, v1};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Duration;

use crate::config::{Config, normalize_endpoint};
use crate::connection::{Call, Connection, Dial, Notice, OnNotice, Parts};
use crate::error::{Error, Result};
use crate::payload;
use crate::retry::Repeat;

/// How long one question for a result is held by the member that is asked; at most 60 s.
const RESULT_WAIT: Duration = Duration::from_secs(30);

/// A client. Cheap to clone; connections are shared and opened when they are first used.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    config: Arc<Config>,
}

impl Client {
    /// A client as the environment describes it. Opens no connection yet.
    ///
    /// # Errors
    /// `Invalid` when a variable holds what it must not.
    pub async fn connect_from_env() -> Result<Client> {
        Client::new(Config::from_env()?)
    }

    /// A client of these members.
    ///
    /// # Errors
    /// `Invalid` for an endpoint that is none.
    pub fn new(config: Config) -> Result<Client> {
        Client::builder(config).build()
    }

    /// A client with other than the usual ways.
    pub fn builder(config: Config) -> ClientBuilder {
        ClientBuilder { config, dial: None, on_notice: None, learn: true, seed: None }
    }

    /// The same client with another timeout for each call with all its repeats.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        let config = Config { timeout, ..(*self.config).clone() };
        Client { connection: self.connection.clone(), config: Arc::new(config) }
    }

    /// The same client in another namespace.
    #[must_use]
    pub fn with_namespace(&self, namespace: &str) -> Client {
        let config = Config { namespace: namespace.to_owned(), ..(*self.config).clone() };
        Client { connection: self.connection.clone(), config: Arc::new(config) }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The members that it knows.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A new run id of this agent: from it alone the agent is found.
    #[must_use]
    pub fn new_run_id(&self, agent: &str) -> String {
        id::make_run_id(&self.config.namespace, agent, self.connection.random())
    }

    /// A new id that makes a repeat of a write safe.
    #[must_use]
    pub fn new_request_id(&self) -> String {
        format!("{:032x}", self.connection.random())
    }

    /// Starts a run and waits for its result, for as long as the run takes.
    ///
    /// # Errors
    /// `RunEnded` when it failed, was cancelled or expired; `Invalid` when input or output are not what serde expects.
    pub async fn run<I, T>(&self, agent: &str, input: I) -> Result<T>
    where
        I: Serialize,
        T: DeserializeOwned,
    {
        let input = payload::encode(&input).map_err(|error| Error::invalid(error.to_string()))?;
        let request = v1::StartRunRequest {
            agent_id: agent.to_owned(),
            input: Some(input),
            ..Default::default()
        };
        let result = self.start_and_wait(request).await?;
        payload::decode(result.output.as_ref()).map_err(|error| Error::invalid(error.to_string()))
    }

    /// Starts a run and waits for its result, for as long as the run takes: one call, if it takes no longer than half a minute.
    ///
    /// # Errors
    /// Those of [`crate::service::Runs::start`], and of [`Client::wait_for_result`].
    pub async fn start_and_wait(
        &self,
        request: v1::StartRunRequest,
    ) -> Result<v1::GetResultResponse> {
        let agent = request.agent_id.clone();
        let wait = prost_types::Duration::try_from(RESULT_WAIT).ok();
        let started = self.runs().start(v1::StartRunRequest { wait, ..request }).await?;
        match started.result {
            Some(result) if result.continued_to.is_empty() => completed(result),
            Some(result) => self.wait_for_result(&agent, &result.continued_to).await,
            None => self.wait_for_result(&agent, &started.run_id).await,
        }
    }

    /// Waits for the result of a run, for as long as the run takes; it survives leader changes. Where another run continues
    /// it, that one's result is the one.
    ///
    /// # Errors
    /// `RunEnded` when the run is over and not completed; `Unavailable` when no member answers for a whole timeout.
    pub async fn wait_for_result(
        &self,
        agent: &str,
        run_id: &str,
    ) -> Result<v1::GetResultResponse> {
        let mut run_id = run_id.to_owned();
        loop {
            let answer = self
                .runs()
                .result(v1::GetResultRequest {
                    agent_id: agent.to_owned(),
                    run_id: run_id.clone(),
                    wait: prost_types::Duration::try_from(RESULT_WAIT).ok(),
                    ..Default::default()
                })
                .await?;
            if !answer.continued_to.is_empty() {
                run_id = answer.continued_to;
            } else if answer.closed {
                return completed(answer);
            }
        }
    }

    pub(crate) fn namespace_or_default(&self, namespace: &mut String) {
        if namespace.is_empty() {
            namespace.clone_from(&self.config.namespace);
        }
    }

    /// Fills in who asks.
    pub(crate) fn sign(&self, options: &mut Option<v1::WriteOptions>) {
        let options = options.get_or_insert_default();
        if options.actor.is_empty() {
            options.actor.clone_from(&self.config.actor);
        }
    }

    /// Fills in who asks and an id that makes a repeat safe; gives the id.
    pub(crate) fn identify(&self, options: &mut Option<v1::WriteOptions>) -> String {
        self.sign(options);
        let options = options.get_or_insert_default();
        if options.request_id.is_empty() {
            options.request_id = self.new_request_id();
        }
        options.request_id.clone()
    }

    pub(crate) fn call_for(&self, repeat: Repeat, request_id: String) -> Call {
        Call {
            repeat,
            request_id,
            timeout: self.config.timeout,
            hold: Duration::ZERO,
            prefer_leader: true,
        }
    }
}

/// Only a completed run has a result.
fn completed(answer: v1::GetResultResponse) -> Result<v1::GetResultResponse> {
    let state = answer.state();
    if state == v1::RunState::Completed {
        return Ok(answer);
    }
    let end_reason = answer.end_reason().as_str_name().trim_start_matches("END_REASON_");
    let (reason, message) = match &answer.failure {
        Some(failure) => (failure.reason.clone(), failure.message.clone()),
        None => (end_reason.to_owned(), end_reason.to_lowercase()),
    };
    Err(Error::RunEnded { run_id: answer.run_id, state, reason, message })
}

/// Makes a [`Client`] with other than the usual ways.
#[must_use]
pub struct ClientBuilder {
    config: Config,
    dial: Option<Dial>,
    on_notice: Option<OnNotice>,
    learn: bool,
    seed: Option<u64>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Opens channels in another way than over plain TCP.
    pub fn dial(mut self, dial: Dial) -> ClientBuilder {
        self.dial = Some(dial);
        self
    }

    /// Is called with what a person who waits may want to know. It must not block.
    pub fn on_notice(mut self, tell: impl Fn(&Notice) + Send + Sync + 'static) -> ClientBuilder {
        self.on_notice = Some(Arc::new(tell));
        self
    }

    /// Whether other members are learned from those that answer; they are unless told otherwise.
    pub fn learn_members(mut self, learn: bool) -> ClientBuilder {
        self.learn = learn;
        self
    }

    /// Takes ids and jitter from this seed, for simulations.
    pub fn seed(mut self, seed: u64) -> ClientBuilder {
        self.seed = Some(seed);
        self
    }

    /// The client.
    ///
    /// # Errors
    /// `Invalid` for an endpoint that is none, or for no endpoint at all.
    pub fn build(self) -> Result<Client> {
        let endpoints: Result<Vec<String>> =
            self.config.endpoints.iter().map(|endpoint| normalize_endpoint(endpoint)).collect();
        let endpoints = endpoints?;
        if endpoints.is_empty() {
            return Err(Error::invalid("no endpoint is given"));
        }
        let connection = Connection::new(Parts {
            endpoints,
            dial: self.dial,
            on_notice: self.on_notice,
            learn: self.learn,
            seed: self.seed,
        });
        Ok(Client { connection, config: Arc::new(self.config) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_unique_and_lead_to_their_agent() {
        let client = Client::new(Config::default()).expect("the defaults are valid");
        let (one, two) = (client.new_run_id("support"), client.new_run_id("support"));
        assert_ne!(one, two);
        assert!(one.starts_with(&id::agent_hash("default", "support")));
    }

    #[test]
    fn a_run_that_did_not_complete_is_an_error_with_its_reason() {
        let answer = v1::GetResultResponse {
            run_id: "r".into(),
            state: v1::RunState::Expired.into(),
            end_reason: v1::EndReason::MaxAge.into(),
            closed: true,
            ..Default::default()
        };
        let error = completed(answer).expect_err("it expired");
        assert_eq!(error.reason(), "MAX_AGE");
        assert_eq!(error.to_string(), "run r ended expired: max_age");
    }
}
