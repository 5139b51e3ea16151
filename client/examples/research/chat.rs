//! The model: any endpoint that speaks OpenAI's chat completions over plain HTTP, when one is configured.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use pinrail_client::config::variable;
use pinrail_client::worker::Usage;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// An answer that is larger is none.
const ANSWER_BYTES: usize = 4 << 20;

/// What a model said, and what it cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) served_model: String,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl Said {
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            model: "default".to_owned(),
            served_model: self.served_model.clone(),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cost_micros: 0,
        }
    }
}

/// Where to ask.
#[derive(Debug)]
pub(crate) struct Chat {
    uri: Uri,
    key: Option<String>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    model: String,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Tokens,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

#[derive(Default, Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl Chat {
    /// The endpoint that the environment names, if it names one.
    pub(crate) fn from_env() -> anyhow::Result<Option<Chat>> {
        let Some(url) = variable("RESEARCH_MODEL_URL") else { return Ok(None) };
        let uri = format!("{}/chat/completions", url.trim_end_matches('/'));
        let uri: Uri = uri.parse().with_context(|| format!("RESEARCH_MODEL_URL {url:?}"))?;
        ensure!(
            uri.scheme_str() == Some("http") && uri.host().is_some(),
            "RESEARCH_MODEL_URL {url:?}: only http:// is spoken here; put a proxy in front of https"
        );
        Ok(Some(Chat {
            uri,
            key: variable("RESEARCH_MODEL_KEY"),
            model: variable("RESEARCH_MODEL"),
        }))
    }

    /// Asks; `model` is the bundle's, used when the environment names none.
    pub(crate) async fn ask(&self, model: &str, system: &str, user: &str) -> anyhow::Result<Said> {
        let model = self.model.as_deref().unwrap_or(model);
        let body = serde_json::json!({
            "model": model,
            "temperature": 0,
            "messages": [
                { "role": "system", "content": system },
                { "role": "user", "content": user },
            ],
        });
        let answer = self.post(body.to_string()).await?;
        let completion: Completion = serde_json::from_slice(&answer)
            .context("the model's answer is not what OpenAI's is")?;
        let choice = completion.choices.into_iter().next().context("the model said nothing")?;
        Ok(Said {
            text: choice.message.content.trim().to_owned(),
            served_model: completion.model,
            input_tokens: completion.usage.prompt_tokens,
            output_tokens: completion.usage.completion_tokens,
        })
    }

    async fn post(&self, body: String) -> anyhow::Result<Bytes> {
        let host = self.uri.host().context("the URL has no host")?;
        let address = format!("{host}:{}", self.uri.port_u16().unwrap_or(80));
        let stream = TcpStream::connect(&address).await.with_context(|| address.clone())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.path())
            .header(header::HOST, &address)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        connection.abort();
        let answer = answer.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        ensure!(
            status.is_success(),
            "the model's endpoint answered {status}: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(500)])
        );
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_chat_endpoint_is_asked_as_openai_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.expect("a request");
            let body = r#"{"model":"m-1","choices":[{"message":{"content":" yes "}}],
                "usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.expect("it reads");
            stream.write_all(body.as_bytes()).await.expect("it reads");
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let uri = format!("http://{address}/v1/chat/completions").parse().expect("a URI");
        let chat = Chat { uri, key: Some("k".into()), model: None };
        let said = chat.ask("m", "be brief", "is it?").await.expect("an answer");
        assert_eq!((said.text.as_str(), said.input_tokens, said.output_tokens), ("yes", 7, 2));
        let request = served.await.expect("it served").to_lowercase();
        assert!(request.starts_with("post /v1/chat/completions http/1.1"), "{request}");
        assert!(request.contains("authorization: bearer k"), "{request}");
    }
}
