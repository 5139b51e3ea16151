//! Spans of what the library does, and how a trace goes from whoever starts a run to those who execute its steps.
//!
//! Names and attributes follow the GenAI conventions of OpenTelemetry (v0.1); what they have no word for begins with
//! `pinrail.`, and `pinrail.bundle.id` is on every span. The spans are `tracing`'s and cost nothing without a subscriber. Feature
//! `otel` joins them to OpenTelemetry's traces, for a program that installs the layer of `tracing-opentelemetry`; without it
//! a trace is only passed on, as the start of the run named it. This file must not know where spans are sent.
//!
//! ```text
//!  invoke_agent (client) --traceparent in the run--> invoke_agent (an attempt of a step) -> execute_tool, checkpoint,
//!                                                                                           search_memory, upsert_memory …
//! ```

use pinrail_proto::trace::TraceParent;
use pinrail_proto::v1;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::worker::{StepContext, StepResult};

/// A span with what all of ours have.
macro_rules! span {
    ($name:literal, $title:expr, $kind:literal, $($fields:tt)*) => {
        tracing::info_span!(
            $name,
            otel.name = $title,
            otel.kind = $kind,
            otel.status_code = Empty,
            "error.type" = Empty,
            $($fields)*
        )
    };
}

/// A span with room for what models used: see [`used`].
macro_rules! span_with_usage {
    ($name:literal, $title:expr, $kind:literal, $($fields:tt)*) => {
        span!(
            $name,
            $title,
            $kind,
            gen_ai.request.model = Empty,
            gen_ai.response.model = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            pinrail.cost_micros = Empty,
            $($fields)*
        )
    };
}

/// A span of something in a step, made by another macro of these.
macro_rules! in_step {
    ($span:ident, $context:expr, $name:literal, $title:expr, $kind:literal, $($fields:tt)*) => {
        $span!(
            $name,
            $title,
            $kind,
            gen_ai.agent.name = $context.agent(),
            pinrail.run.id = $context.run_id(),
            pinrail.bundle.id = $context.bundle().id(),
            pinrail.step.name = $context.step_name(),
            $($fields)*
        )
    };
}

/// The start of a run, seen by who starts it; what becomes of it is not known yet.
pub(crate) fn start(request: &v1::StartRunRequest) -> Span {
    let agent = request.agent_id.as_str();
    let span = span!(
        "invoke_agent",
        format!("invoke_agent {agent}"),
        "client",
        gen_ai.operation.name = "invoke_agent",
        gen_ai.agent.name = agent,
        gen_ai.agent.version = Empty,
        gen_ai.conversation.id = Empty,
        pinrail.run.id = Empty,
        pinrail.bundle.id = Empty,
    );
    if !request.session.is_empty() {
        span.record("gen_ai.conversation.id", &request.session);
    }
    follow(&span, &request.trace_parent);
    span
}

/// What the start came to.
pub(crate) fn started(span: &Span, answer: &v1::StartRunResponse) {
    span.record("pinrail.run.id", &answer.run_id);
    if !answer.bundle_id.is_empty() {
        span.record("pinrail.bundle.id", &answer.bundle_id);
        span.record("gen_ai.agent.version", &answer.bundle_id);
    }
}

/// One attempt of a step.
pub(crate) fn step(assignment: &v1::Assignment, agent: &str, worker_id: &str) -> Span {
    let span = span_with_usage!(
        "invoke_agent",
        format!("invoke_agent {agent}"),
        "internal",
        gen_ai.operation.name = "invoke_agent",
        gen_ai.agent.name = agent,
        gen_ai.conversation.id = Empty,
        pinrail.run.id = assignment.run_id,
        pinrail.run.kind = word(assignment.kind()),
        pinrail.bundle.id = assignment.bundle_id,
        pinrail.step.name = assignment.name,
        pinrail.step.number = assignment.step,
        pinrail.step.attempt = assignment.attempt,
        pinrail.step.outcome = Empty,
        pinrail.worker.id = worker_id,
    );
    if !assignment.session.is_empty() {
        span.record("gen_ai.conversation.id", &assignment.session);
    }
    follow(&span, &assignment.trace_parent);
    span
}

/// A call of a tool in a step. `key`: the idempotency key, the same in every attempt.
pub(crate) fn tool(context: &StepContext, name: &str, key: &str) -> Span {
    in_step!(
        span,
        context,
        "execute_tool",
        format!("execute_tool {name}"),
        "internal",
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = name,
        "gen_ai.tool.type" = "function",
        gen_ai.tool.call.id = key,
        pinrail.tool.schema_digest = Empty,
        pinrail.replayed = Empty,
    )
}

/// A checkpoint of a step, by its name in the record.
pub(crate) fn checkpoint(context: &StepContext, name: &str) -> Span {
    in_step!(
        span_with_usage,
        context,
        "checkpoint",
        format!("checkpoint {name}"),
        "internal",
        pinrail.checkpoint.name = name,
        pinrail.replayed = Empty,
    )
}

/// A read or write of memory; `operation` is a word of the conventions, `key` a path or a prefix.
pub(crate) fn memory(context: &StepContext, operation: &'static str, key: &str) -> Span {
    let agent = context.agent();
    in_step!(
        span,
        context,
        "memory",
        format!("{operation} {agent}"),
        "client",
        gen_ai.operation.name = operation,
        gen_ai.memory.store.id = agent,
        gen_ai.memory.record.id = key,
    )
}

/// What models used under a span, as far as it has room for it: a step's sum, or one call in its checkpoint.
pub(crate) fn used<'a>(span: &Span, usage: impl IntoIterator<Item = &'a v1::ModelUsage>) {
    let mut sum = v1::ModelUsage::default();
    for one in usage {
        sum.input_tokens = sum.input_tokens.saturating_add(one.input_tokens);
        sum.output_tokens = sum.output_tokens.saturating_add(one.output_tokens);
        sum.cost_micros = sum.cost_micros.saturating_add(one.cost_micros);
        // Of several the last one: the conventions have room for one.
        sum.model.clone_from(&one.model);
        sum.served_model.clone_from(&one.served_model);
        sum.calls += 1;
    }
    if sum.calls > 0 {
        span.record("gen_ai.request.model", &sum.model);
        span.record("gen_ai.usage.input_tokens", sum.input_tokens);
        span.record("gen_ai.usage.output_tokens", sum.output_tokens);
        span.record("pinrail.cost_micros", sum.cost_micros);
    }
    if !sum.served_model.is_empty() {
        span.record("gen_ai.response.model", &sum.served_model);
    }
}

/// Does something under a span, which says how it ended.
pub(crate) async fn under<T>(
    span: Span,
    work: impl Future<Output = StepResult<T>>,
) -> StepResult<T> {
    let result = work.instrument(span.clone()).await;
    if let Err(error) = &result {
        failed(&span, error.reason());
    }
    result
}

/// It ended in an error.
pub(crate) fn failed(span: &Span, reason: &str) {
    span.record("error.type", reason);
    span.record("otel.status_code", "ERROR");
}

fn word(kind: v1::RunKind) -> String {
    kind.as_str_name().trim_start_matches("RUN_KIND_").to_lowercase()
}

/// Makes a span that has not begun part of another's trace.
#[cfg(feature = "otel")]
fn follow(span: &Span, parent: &str) {
    use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags, TraceState};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let Ok(parent) = parent.parse::<TraceParent>() else { return };
    let remote = SpanContext::new(
        parent.trace_id.into(),
        parent.span_id.into(),
        TraceFlags::new(parent.flags),
        true,
        TraceState::NONE,
    );
    let parent = opentelemetry::Context::new().with_remote_span_context(remote);
    // Without the layer there is nothing that could be part of a trace.
    let _ = span.set_parent(parent);
}

#[cfg(not(feature = "otel"))]
fn follow(_: &Span, _: &str) {}

/// What others need to be part of a span's trace; `None` for a span that is in none.
#[cfg(feature = "otel")]
pub(crate) fn parent(span: &Span) -> Option<TraceParent> {
    use opentelemetry::trace::TraceContextExt as _;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| TraceParent {
        trace_id: u128::from_be_bytes(span.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(span.span_id().to_bytes()),
        flags: span.trace_flags().to_u8(),
    })
}

#[cfg(not(feature = "otel"))]
pub(crate) fn parent(_: &Span) -> Option<TraceParent> {
    None
}
