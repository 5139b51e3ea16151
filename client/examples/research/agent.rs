//! The four steps. Everything that another attempt must not do again is a tool call or a checkpoint.

use std::sync::Arc;
use std::time::Duration;

use pinrail_client::worker::{BundleView, Next, StepContext, StepError, StepResult, WorkerBuilder};
use serde::{Deserialize, Serialize};

use crate::chat::{Chat, Said};
use crate::corpus::{Chunk, Chunking, Library};
use crate::extract::{Sentence, answer, best, keywords, sentences};
use crate::step_log::StepLog;

/// Search queries of one question.
const QUERIES: usize = 2;
/// Chunks that one query may bring.
const HITS: usize = 4;
/// Sentences that are kept of one chunk.
const NOTES: usize = 3;
/// Topics of a user that are remembered.
const TOPICS: usize = 5;
/// A question with fewer words of its own is understood by what the user asked before.
const OWN_WORDS: usize = 2;

/// What the agent needs beside the bundle.
pub(crate) struct Agent {
    pub(crate) library: Library,
    pub(crate) chat: Option<Chat>,
    pub(crate) log: StepLog,
}

/// Input of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ask {
    #[serde(default)]
    question: String,
    /// Whose topics are remembered.
    #[serde(default)]
    user: Option<String>,
    /// A simulated slow document: the read step takes so long.
    #[serde(default)]
    think_ms: u64,
    /// A simulated document without end: the read step lasts until the run is cancelled.
    #[serde(default)]
    never_end: bool,
    /// With `never_end`: it does not even listen.
    #[serde(default)]
    stubborn: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    ask: Ask,
    queries: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Found {
    ask: Ask,
    chunks: Vec<Chunk>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Read {
    ask: Ask,
    notes: Vec<Note>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    document: String,
    text: String,
}

/// Output of a run.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    answer: String,
    /// Documents that the notes came from.
    sources: Vec<String>,
    bundle: String,
    index: String,
    search_tool: String,
    served_model: String,
    /// What the agent remembered of the user.
    topics: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SearchArguments {
    query: String,
    limit: usize,
}

/// Hits as the tool's version gives them: version 1 has texts alone.
#[derive(Debug, Serialize, Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Hit {
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

/// Adds the steps to a worker.
pub(crate) fn serve(worker: WorkerBuilder, agent: &Arc<Agent>) -> WorkerBuilder {
    let (a, b, c, d) = (agent.clone(), agent.clone(), agent.clone(), agent.clone());
    worker
        .step("plan", move |ctx, ask| plan(a.clone(), ctx, ask))
        .step("retrieve", move |ctx, plan| retrieve(b.clone(), ctx, plan))
        .step("read", move |ctx, found| read(c.clone(), ctx, found))
        .step("answer", move |ctx, read| write(d.clone(), ctx, read))
}

async fn plan(agent: Arc<Agent>, ctx: StepContext, ask: Ask) -> StepResult<Next> {
    agent.log.begins(&ctx)?;
    if ask.question.trim().is_empty() && !ask.never_end && ask.think_ms == 0 {
        return Err(StepError::fatal("NO_QUESTION", "the input has no question"));
    }
    let known = topics(&ctx, &ask).await?;
    let queries: Vec<String> =
        ctx.checkpoint("queries", || agent.queries(&ctx, &ask, &known)).await?;
    Ok(Next::step("retrieve", Plan { ask, queries }))
}

async fn retrieve(agent: Arc<Agent>, ctx: StepContext, plan: Plan) -> StepResult<Next> {
    agent.log.begins(&ctx)?;
    let (chunking, version) = search_parts(ctx.bundle())?;
    let mut chunks: Vec<Chunk> = Vec::new();
    for query in plan.queries {
        let arguments = SearchArguments { query, limit: HITS };
        let search = |arguments: SearchArguments, _key| {
            let found = agent.library.search(chunking, &arguments.query, arguments.limit);
            std::future::ready(StepResult::Ok(hits(&version, found)))
        };
        let found: Hits = ctx.tool("search").call(arguments, search).await?;
        for hit in found.hits {
            if chunks.iter().all(|chunk| chunk.text != hit.text) {
                chunks.push(Chunk {
                    document: hit.document.unwrap_or_default(),
                    text: hit.text,
                    score: hit.score.unwrap_or_default(),
                });
            }
        }
    }
    Ok(Next::step("read", Found { ask: plan.ask, chunks }))
}

async fn read(agent: Arc<Agent>, ctx: StepContext, found: Found) -> StepResult<Next> {
    agent.log.begins(&ctx)?;
    slow_document(&ctx, &found.ask).await?;
    let mut notes = Vec::new();
    for chunk in &found.chunks {
        // One name for all: the second is `read#2`, and a later attempt goes on where this one stopped.
        let taken: Vec<Note> = ctx.checkpoint("read", async || take(&found.ask, chunk)).await?;
        add(&mut notes, taken);
    }
    Ok(Next::step("answer", Read { ask: found.ask, notes }))
}

async fn write(agent: Arc<Agent>, ctx: StepContext, read: Read) -> StepResult<Next> {
    agent.log.begins(&ctx)?;
    let said: Said = ctx.checkpoint("reply", || agent.reply(&ctx, &read)).await?;
    ctx.report(said.usage());
    let topics = remember(&ctx, &read.ask).await?;
    let mut sources: Vec<String> = read.notes.iter().map(|note| note.document.clone()).collect();
    sources.retain(|source| !source.is_empty());
    sources.sort();
    sources.dedup();
    let bundle = ctx.bundle();
    Ok(Next::done(Answer {
        answer: said.text,
        sources,
        bundle: bundle.id().to_owned(),
        index: bundle.index("corpus").map(|index| index.version.clone()).unwrap_or_default(),
        search_tool: bundle.tool("search").map(|tool| tool.version.clone()).unwrap_or_default(),
        served_model: said.served_model,
        topics,
    }))
}

impl Agent {
    async fn queries(
        &self,
        ctx: &StepContext,
        ask: &Ask,
        known: &[String],
    ) -> StepResult<Vec<String>> {
        let mut words = keywords(&ask.question);
        if words.len() < OWN_WORDS {
            words.extend(known.iter().cloned());
        }
        let Some(chat) = &self.chat else {
            let query = words.join(" ");
            return Ok(if query.is_empty() { Vec::new() } else { vec![query] });
        };
        let user = format!("Question: {}\nEarlier topics: {}", ask.question, known.join(", "));
        let said = asked(chat, ctx, prompt(ctx.bundle(), "plan")?, &user).await?;
        ctx.report(said.usage());
        let lines = said.text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.take(QUERIES).map(str::to_owned).collect())
    }

    async fn reply(&self, ctx: &StepContext, read: &Read) -> StepResult<Said> {
        let system = prompt(ctx.bundle(), "system")?;
        if let Some(chat) = &self.chat {
            let notes =
                read.notes.iter().map(|note| format!("- [{}] {}", note.document, note.text));
            let notes = notes.collect::<Vec<_>>().join("\n");
            let user = format!("Question: {}\nNotes:\n{notes}", read.ask.question);
            return asked(chat, ctx, system, &user).await;
        }
        let notes: Vec<Sentence> = read
            .notes
            .iter()
            .map(|note| Sentence { text: note.text.clone(), document: note.document.clone() })
            .collect();
        let text = answer(system, &read.ask.question, &notes);
        let count = |text: &str| text.split_whitespace().count() as u64;
        let model = ctx.bundle().model();
        Ok(Said {
            served_model: format!("{}-{}", model.name, model.snapshot),
            input_tokens: notes.iter().map(|note| count(&note.text)).sum::<u64>() + count(system),
            output_tokens: count(&text),
            text,
        })
    }
}

async fn asked(chat: &Chat, ctx: &StepContext, system: &str, user: &str) -> StepResult<Said> {
    let model = ctx.bundle().model();
    let said = chat.ask(&model.name, system, user).await;
    said.map_err(|error| StepError::retry(format!("{error:#}")).with_reason("MODEL_ERROR"))
}

/// A step of so many milliseconds, or one without end. Heartbeats go on meanwhile.
async fn slow_document(ctx: &StepContext, ask: &Ask) -> StepResult<()> {
    if ask.never_end && ask.stubborn {
        std::future::pending::<()>().await;
    }
    if ask.never_end {
        let reason = ctx.cancelled().await;
        return Err(StepError::fatal("STOPPED", format!("cancelled: {reason:?}")));
    }
    if ask.think_ms > 0 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ask.think_ms)) => {}
            reason = ctx.cancelled() => {
                return Err(StepError::retry(format!("cancelled: {reason:?}")).with_reason("STOPPED"));
            }
        }
    }
    Ok(())
}

/// The sentences of a chunk that are about the question.
fn take(ask: &Ask, chunk: &Chunk) -> StepResult<Vec<Note>> {
    let all: Vec<Sentence> = sentences(&chunk.text)
        .into_iter()
        .map(|text| Sentence { text, document: chunk.document.clone() })
        .collect();
    let note = |one: Sentence| Note { document: one.document, text: one.text };
    Ok(best(&ask.question, &all, NOTES).into_iter().map(note).collect())
}

/// Windows of one document overlap: a sentence is noted once.
fn add(notes: &mut Vec<Note>, taken: Vec<Note>) {
    for note in taken {
        if notes.iter().all(|known| known.text != note.text) {
            notes.push(note);
        }
    }
}

/// How the bundle wants to search: the way to cut documents, and the tool's version.
fn search_parts(bundle: &BundleView) -> StepResult<(Chunking, String)> {
    let version = bundle.index("corpus").map_or("", |index| index.version.as_str());
    let chunking = Chunking::of(version).ok_or_else(|| {
        StepError::fatal("UNKNOWN_INDEX", format!("index corpus has no known version: {version:?}"))
    })?;
    let tool = bundle.tool("search").map(|tool| tool.version.clone()).unwrap_or_default();
    Ok((chunking, tool))
}

fn hits(version: &str, found: Vec<Chunk>) -> Hits {
    let with_source = version != "1";
    let hit = |chunk: Chunk| Hit {
        text: chunk.text,
        document: with_source.then_some(chunk.document),
        score: with_source.then_some(chunk.score),
    };
    Hits { hits: found.into_iter().map(hit).collect() }
}

fn prompt<'b>(bundle: &'b BundleView, name: &str) -> StepResult<&'b str> {
    let text =
        bundle.prompt(name).map(|prompt| prompt.text.as_str()).filter(|text| !text.is_empty());
    text.ok_or_else(|| {
        let message = format!("bundle {} has no text for prompt {name:?}", bundle.id());
        StepError::fatal("NO_PROMPT", message)
    })
}

/// What the user asked about before, the latest first.
async fn topics(ctx: &StepContext, ask: &Ask) -> StepResult<Vec<String>> {
    let Some(user) = &ask.user else { return Ok(Vec::new()) };
    Ok(ctx.memory().get(["user", user, "topics"]).await?.unwrap_or_default())
}

/// Puts the words of this question before the earlier ones.
async fn remember(ctx: &StepContext, ask: &Ask) -> StepResult<Vec<String>> {
    let Some(user) = &ask.user else { return Ok(Vec::new()) };
    let mut topics = keywords(&ask.question);
    topics.extend(self::topics(ctx, ask).await?);
    let mut seen = std::collections::BTreeSet::new();
    topics.retain(|topic| seen.insert(topic.clone()));
    topics.truncate(TOPICS);
    ctx.memory().put(["user", user, "topics"], &topics).await?;
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the four steps do, without a cluster.
    fn answered(prompt: &str, chunking: Chunking, question: &str) -> String {
        let ask: Ask = serde_json::from_value(serde_json::json!({ "question": question }))
            .expect("a question is an input");
        let found = Library::embedded().search(chunking, &keywords(question).join(" "), HITS);
        let mut notes = Vec::new();
        for chunk in &found {
            add(&mut notes, take(&ask, chunk).expect("it is text"));
        }
        let sentence = |note: Note| Sentence { text: note.text, document: note.document };
        let notes: Vec<Sentence> = notes.into_iter().map(sentence).collect();
        answer(prompt, question, &notes)
    }

    #[test]
    fn both_bundles_answer_from_the_right_document_and_differently() {
        let (v1, v2) = (include_str!("prompts/system-v1.md"), include_str!("prompts/system-v2.md"));
        let questions = [
            ("Why must a failed fsync not be retried?", "fsync", "write-ahead-log"),
            ("What does a fencing token do?", "token", "leases-and-fencing"),
            ("How many servers can a Raft cluster of five lose?", "lost", "raft-consensus"),
            ("How does BM25 treat rare words?", "BM25", "ranking-with-bm25"),
            ("Who coordinates during an incident?", "coordinates", "incident-response"),
        ];
        for (question, word, document) in questions {
            let old = answered(v1, Chunking::Paragraphs, question);
            let new = answered(v2, Chunking::Windows, question);
            assert!(old.contains(word) || new.contains(word), "{question}: {old} / {new}");
            assert!(!old.contains('['), "{question}: {old}");
            assert!(new.contains(&format!("[{document}]")), "{question}: {new}");
        }
    }
}
