//! A receiver of hooks: a small web server that keeps what it was sent and answers as a test wants.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::Sha256;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep};

use crate::nodes::SOON;

/// What was sent, once.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) raw: Bytes,
    pub(crate) body: Value,
    /// How often the same came before.
    pub(crate) repeats: usize,
}

impl Sent {
    pub(crate) fn id(&self) -> &str {
        self.body["id"].as_str().unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    /// The attribute of the event.
    pub(crate) fn fact(&self, key: &str) -> &str {
        self.body["data"]["attributes"][key].as_str().unwrap_or_default()
    }

    /// Whether its signature is that of somebody who knows the secret, as docs/HOOKS.md has receivers check it.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let header = |name: &str| self.headers.get(name).map_or("", String::as_str);
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
        mac.update(&self.raw);
        header("webhook-signature")
            == format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Status and body.
pub(crate) type Reply = (u16, &'static str);

pub(crate) struct Receiver {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Sent>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Listens, and gives each request the answer that `reply` has for it.
    pub(crate) async fn start(
        reply: impl Fn(&Sent) -> Reply + Clone + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::<Sent>::new()));
        let kept = seen.clone();
        let take = move |uri: Uri, headers: HeaderMap, raw: Bytes| async move {
            let mut kept = kept.lock();
            let headers = headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect();
            let body: Value = serde_json::from_slice(&raw).unwrap();
            let path = uri.path().to_owned();
            let is_same = |it: &&Sent| it.path == path && it.body["id"] == body["id"];
            let repeats = kept.iter().filter(is_same).count();
            let sent = Sent { path, headers, raw, body, repeats };
            let (status, text) = reply(&sent);
            kept.push(sent);
            (StatusCode::from_u16(status).unwrap(), text)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = axum::serve(listener, Router::new().fallback(take)).into_future();
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self { url, seen, server }
    }

    pub(crate) fn seen(&self) -> Vec<Sent> {
        self.seen.lock().clone()
    }

    /// Waits until what was sent is as somebody wants it.
    pub(crate) async fn until(&self, wanted: impl Fn(&[Sent]) -> bool) -> Vec<Sent> {
        let deadline = Instant::now() + SOON;
        loop {
            let seen = self.seen();
            if wanted(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "this was sent: {seen:#?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}
