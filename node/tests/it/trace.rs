//! A run and its steps are one OpenTelemetry trace, from whoever starts it to the tools of its last step.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use parking_lot::Mutex;
use pinrail_client::worker::{Next, StepContext, StepError, StepResult, Usage};
use pinrail_client::{Worker, v1};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::exec::{agent, end, exec};
use crate::nodes::{Nodes, SOON};

/// Keeps what this thread's spans became.
struct Kept {
    exporter: InMemorySpanExporter,
    provider: SdkTracerProvider,
    _here: DefaultGuard,
}

impl Kept {
    fn here() -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let ours = tracing_subscriber::filter::Targets::new()
            .with_target("pinrail_client::trace", tracing::Level::INFO);
        let here = tracing::subscriber::set_default(
            tracing_subscriber::registry()
                .with(tracing_subscriber::Layer::with_filter(layer, ours)),
        );
        Self { exporter, provider, _here: here }
    }

    /// Waits for so many spans: a step's ends when its worker's loop has let go of it.
    async fn spans(&self, count: usize) -> Vec<SpanData> {
        let deadline = Instant::now() + SOON;
        loop {
            self.provider.force_flush().expect("it is kept in memory");
            let spans = self.exporter.get_finished_spans().expect("it is kept in memory");
            if spans.len() >= count {
                return spans;
            }
            let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
            assert!(Instant::now() < deadline, "{names:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn text(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map_or_else(String::new, |attribute| attribute.value.as_str().into_owned())
}

/// The only span of this name, or of this step.
fn named<'a>(spans: &'a [SpanData], name: &str, step: &str) -> &'a SpanData {
    let is_it = |span: &&SpanData| span.name == name && text(span, "pinrail.step.name") == step;
    let mut found = spans.iter().filter(is_it);
    let span = found.next().unwrap_or_else(|| panic!("no {name} of {step:?} in {spans:#?}"));
    assert!(found.next().is_none(), "two of {name} in {spans:#?}");
    span
}

async fn plan(ctx: StepContext, ask: Json) -> StepResult<Next> {
    ctx.checkpoint("draft", async || {
        ctx.report(Usage { model: "default".into(), input_tokens: 7, ..Usage::default() });
        StepResult::Ok(1)
    })
    .await?;
    ctx.report(Usage { model: "default".into(), output_tokens: 2, ..Usage::default() });
    Ok(Next::step("look", ask))
}

async fn look(ctx: StepContext, _: Json) -> StepResult<Next> {
    ctx.memory().put(["seen", "last"], &true).await?;
    let called = Arc::new(Mutex::new(None));
    let inside = (Arc::clone(&called), ctx.clone());
    let tool = ctx.tool("count").call(json!({ "words": [] }), |_, _| async move {
        *inside.0.lock() = inside.1.trace_parent();
        Ok::<_, StepError>(json!({ "seen": 1 }))
    });
    let _: Json = tool.await?;
    let told = called.lock().clone();
    Ok(Next::done(told))
}

#[tokio::test]
async fn a_run_is_one_trace_from_its_start_to_its_tools_with_the_bundle_on_every_span() {
    let kept = Kept::here();
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::builder(client.clone())
        .agent("support")
        .bundle("v1")
        .code("abc")
        .worker_id("w")
        .step("plan", plan)
        .step("look", look)
        .run_until(async { drop(stopped.await) });
    let worker = tokio::spawn(worker);
    let called: String = client.run("support", json!({})).await.expect("it completes");
    stop.send(()).expect("the worker works");
    worker.await.expect("it does not panic").expect("it ends well");
    let spans = kept.spans(6).await;
    let start = named(&spans, "invoke_agent support", "");
    let plan = named(&spans, "invoke_agent support", "plan");
    let look = named(&spans, "invoke_agent support", "look");
    let tool = named(&spans, "execute_tool count", "look");
    let draft = named(&spans, "checkpoint draft", "plan");
    let memory = named(&spans, "upsert_memory support", "look");
    assert_eq!(start.parent_span_id, SpanId::INVALID);
    for (span, parent) in
        [(plan, start), (look, start), (tool, look), (memory, look), (draft, plan)]
    {
        assert_eq!(span.parent_span_id, parent.span_context.span_id(), "{span:#?}");
    }
    for span in &spans {
        assert_eq!(span.span_context.trace_id(), start.span_context.trace_id(), "{span:#?}");
        assert_eq!(text(span, "pinrail.bundle.id"), "v1", "{span:#?}");
        assert!(!text(span, "pinrail.run.id").is_empty(), "{span:#?}");
        assert_eq!(text(span, "gen_ai.agent.name"), "support", "{span:#?}");
    }
    assert_eq!(text(tool, "gen_ai.operation.name"), "execute_tool");
    assert_eq!(text(draft, "gen_ai.usage.input_tokens"), "7");
    let used = ["input", "output"].map(|side| text(plan, &format!("gen_ai.usage.{side}_tokens")));
    assert_eq!(used, ["7", "2"], "a step has the sum of what was reported in it");
    assert_eq!(text(plan, "pinrail.step.outcome"), "completed");
    // What the tool calls is told to be part of the tool's span.
    let tool = &tool.span_context;
    assert_eq!(called, format!("00-{}-{}-01", tool.trace_id(), tool.span_id()));
    nodes.stop_all().await;
}

/// What a program is told, in the step object and as a shell sees it.
const TOLD: &str = r#"
step=$(cat)
told=$(printf '%s' "$step" | sed -n 's/.*"trace_parent":"\([^"]*\)".*/\1/p')
printf '{"done":"%s %s"}\n' "$told" "${TRACEPARENT:-none}"
"#;

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_program_is_told_the_trace_of_its_run_and_the_command_line_passes_on_its_callers() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = ["--per-step", "--", "sh", "-c", TOLD];
    let mut host = exec(&nodes, folder.path(), &program).spawn().expect("the binary runs");
    let start = tokio::process::Command::new(env!("CARGO_BIN_EXE_pinrail"))
        .args(["--endpoint", &nodes.endpoint(0), "run", "start", "support", "--run-id", "r"])
        .args(["--session", "chat", "--wait", "--timeout", "30s", "-o", "json"])
        .env("TRACEPARENT", CALLER)
        .output();
    let said = start.await.expect("the binary runs");
    let result: Json = serde_json::from_slice(&said.stdout).expect("it is JSON");
    assert_eq!(result["output"], format!("{CALLER} {CALLER}"), "{result}");
    let request =
        v1::GetRunRequest { agent_id: "support".into(), run_id: "r".into(), ..Default::default() };
    let run = client.runs().get(request).await.expect("it is read").run.expect("it is there");
    assert_eq!(run.trace_parent, CALLER);
    end(&mut host).await;
    nodes.stop_all().await;
}
