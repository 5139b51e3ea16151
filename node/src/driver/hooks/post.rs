//! One HTTP request: made, signed, sent, and its answer read as far as anybody wants it. Redirects are not followed: a
//! hook is sent to where the policy says and nowhere else.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::config;

use super::message::Message;
use super::sign::signature;

/// How long a receiver may take, the connection included.
const WITHIN: Duration = Duration::from_secs(10);
/// What is read of an answer.
const ANSWER_BYTES: usize = 4 << 10;
/// Connections to one receiver that are kept open, and for how long.
const IDLE_CONNECTIONS: usize = 2;
const IDLE: Duration = Duration::from_secs(60);

/// What a receiver said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The first 4 KiB.
    pub(super) body: Bytes,
    /// `Retry-After` in milliseconds.
    pub(super) again_ms: Option<u64>,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum PostError {
    #[error("the URL cannot be used: {0}")]
    Url(String),
    #[error("{0}")]
    Secret(#[from] config::SecretError),
    #[error("no answer within {} s", WITHIN.as_secs())]
    Timeout,
    #[error("{0}")]
    Network(String),
}

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends; keeps connections. Made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Post {
    client: OnceLock<Https>,
}

impl Post {
    /// Posts a message to a hook.
    pub(super) async fn send(
        &self,
        url: &str,
        secret: &str,
        message: &Message,
        wall_ms: u64,
    ) -> Result<Answer, PostError> {
        let mut request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/cloudevents+json")
            .header(header::USER_AGENT, concat!("pinrail/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", wall_ms / 1_000);
        if !secret.is_empty() {
            let secrets = config::secret(secret)?;
            let signed = signature(&secrets, &message.id, wall_ms / 1_000, &message.body);
            request = request.header("webhook-signature", signed);
        }
        let request = request
            .body(Full::new(message.body.clone()))
            .map_err(|error| PostError::Url(error.to_string()))?;
        timeout(WITHIN, self.exchange(request)).await.map_err(|_| PostError::Timeout)?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, PostError> {
        let answer = self.client().request(request).await;
        let answer = answer.map_err(|error| PostError::Network(causes(&error)))?;
        let (head, mut rest) = answer.into_parts();
        let mut body = BytesMut::new();
        while body.len() < ANSWER_BYTES {
            // An answer that breaks off has said its status all the same.
            let Some(Ok(frame)) = rest.frame().await else { break };
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(&data[..data.len().min(ANSWER_BYTES - body.len())]);
            }
        }
        let again = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let again_ms = again.and_then(|text| text.parse::<u64>().ok()).map(|s| s * 1_000);
        Ok(Answer { status: head.status.as_u16(), body: body.freeze(), again_ms })
    }

    fn client(&self) -> &Https {
        self.client.get_or_init(|| {
            let mut http = HttpConnector::new();
            http.enforce_http(false);
            http.set_connect_timeout(Some(WITHIN / 2));
            let https = HttpsConnectorBuilder::new()
                .with_tls_config(tls())
                .https_or_http()
                .enable_http1()
                .wrap_connector(http);
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .build(https)
        })
    }
}

/// Trusts what the machine trusts. A machine that trusts nobody can still call `http:` URLs.
fn tls() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the protocol versions that it is made for");
    match builder.clone().with_native_roots() {
        Ok(trusting) => trusting.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "no certificates are trusted here: hooks with https: URLs fail");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    }
}

/// An error with everything beneath it: the client's own says little more than that it failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
