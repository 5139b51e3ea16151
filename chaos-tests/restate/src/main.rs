//! What Restate calls while it is measured: runs of one and of ten durable steps, each of which answers with what it was asked, as
//! the steps on our side do.
//!
//! ```text
//! pinrail-restate 127.0.0.1:9080
//! ```

use std::error::Error;

use restate_sdk::prelude::*;
use tokio::net::TcpListener;

struct Steps;

#[service]
impl Steps {
    #[handler]
    async fn one(&self, context: Context<'_>, input: String) -> HandlerResult<String> {
        steps(&context, 1, input).await
    }

    #[handler]
    async fn ten(&self, context: Context<'_>, input: String) -> HandlerResult<String> {
        steps(&context, 10, input).await
    }
}

/// One after the other, each on the answer of the one before it.
async fn steps(context: &Context<'_>, count: usize, input: String) -> HandlerResult<String> {
    let mut text = input;
    for _ in 0..count {
        text = context.run(async move || Ok(text)).await?;
    }
    Ok(text)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address =
        std::env::args().nth(1).ok_or("say where to listen: pinrail-restate 127.0.0.1:9080")?;
    let listener = TcpListener::bind(&address).await?;
    HttpServer::new(Endpoint::builder().bind(Steps).build()).serve(listener).await;
    Ok(())
}
