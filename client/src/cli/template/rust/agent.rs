//! The steps of the agent: plan → answer.

use pinrail_client::worker::{
    BundleView, DEFAULT, Next, StepContext, StepError, StepResult, Usage, WorkerBuilder,
};
use serde::{Deserialize, Serialize};

const FACTS: [(&str, &str); 2] =
    [("refund", "A refund takes five days."), ("open", "We are open from 9 to 5.")];

/// What a run is started with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    pub question: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Query {
    query: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Found {
    facts: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Draft {
    question: String,
    facts: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    text: String,
    input_tokens: u64,
    output_tokens: u64,
}

/// The result of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    pub answer: String,
    pub bundle: String,
}

/// Gives a worker the steps of this agent.
pub fn steps(worker: WorkerBuilder) -> WorkerBuilder {
    worker.step("plan", plan).step("answer", answer)
}

async fn plan(ctx: StepContext, ask: Ask) -> StepResult<Next> {
    // A tool is called once, however often the step is tried. What goes in and out is held to the schemas in tools/.
    let query = Query { query: ask.question.clone() };
    let found: Found = ctx.tool("search").call(query, |query, _key| search(query)).await?;
    Ok(Next::step("answer", Draft { question: ask.question, facts: found.facts }))
}

async fn search(query: Query) -> Result<Found, StepError> {
    let words = query.query.to_lowercase();
    let known = FACTS.iter().filter(|(word, _)| words.contains(word));
    Ok(Found { facts: known.map(|(_, fact)| (*fact).to_owned()).collect() })
}

async fn answer(ctx: StepContext, draft: Draft) -> StepResult<Next> {
    // What stands in a checkpoint is done once too: a retried step does not ask the model again.
    let reply = ctx.checkpoint("reply", || ask_model(ctx.bundle(), &draft)).await?;
    ctx.report(Usage {
        model: DEFAULT.into(),
        input_tokens: reply.input_tokens,
        output_tokens: reply.output_tokens,
        ..Usage::default()
    });
    // Memory belongs to the bundle: a rollback brings back what its runs knew.
    ctx.memory().put(["last", "question"], &draft.question).await?;
    Ok(Next::done(Answer { answer: reply.text, bundle: ctx.bundle().id().to_owned() }))
}

/// Stands in for a model, so that this runs without one: it repeats its prompt and what was found. Ask yours here; which
/// one is in `bundle.model()`.
async fn ask_model(bundle: &BundleView, draft: &Draft) -> StepResult<Reply> {
    let prompt = bundle.prompt("system").map_or("", |prompt| prompt.text.trim());
    let known = draft.facts.iter().map(String::as_str);
    let facts: Vec<&str> =
        if draft.facts.is_empty() { vec!["I do not know."] } else { known.collect() };
    let text = [vec![prompt], facts].concat().join(" ");
    let count = |text: &str| text.split_whitespace().count() as u64;
    Ok(Reply { input_tokens: count(prompt), output_tokens: count(&text), text })
}
