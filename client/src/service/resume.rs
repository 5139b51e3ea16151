//! A stream of answers that breaks with its member and goes on at another one.

use std::future::Future;

use tonic::Streaming;

use crate::client::Client;
use crate::error::Result;
use crate::retry::{Verdict, judge};

/// The stream and the request that opens it. Whoever reads it moves the request on behind what was read.
#[derive(Debug)]
pub(super) struct Resumed<Q, R> {
    client: Client,
    pub(super) request: Q,
    stream: Option<Streaming<R>>,
}

impl<Q: Clone, R> Resumed<Q, R> {
    pub(super) fn new(client: &Client, request: Q) -> Resumed<Q, R> {
        Resumed { client: client.clone(), request, stream: None }
    }

    /// The next answer, from a stream that `open` opens where there is none.
    ///
    /// # Errors
    /// A refusal, or that no member answers for a whole timeout.
    pub(super) async fn next<F, Fut>(&mut self, open: F) -> Result<R>
    where
        F: Fn(Client, Q) -> Fut,
        Fut: Future<Output = Result<Streaming<R>>>,
    {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let opened = open(self.client.clone(), self.request.clone()).await?;
                    self.stream.insert(opened)
                }
            };
            match stream.message().await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => self.stream = None,
                Err(status) => {
                    self.stream = None;
                    if let Verdict::Refused(error) = judge(&status) {
                        return Err(error);
                    }
                }
            }
        }
    }
}
