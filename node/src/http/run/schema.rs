//! What the bodies of a run's operations hold, as the OpenAPI document says it.

use pinrail_proto::v1;
use serde_json::json;

use super::super::openapi::{flag, object, text, words};

pub(super) fn score() -> serde_json::Value {
    let permille = json!({
        "type": "integer", "minimum": 0, "maximum": 1_000, "description": "Thousandths."
    });
    object(
        &["score_permille"],
        &[
            ("score_permille", permille),
            ("source", words::<v1::ScoreSource>()),
            ("comment", text("At most 4 KiB.")),
        ],
    )
}

pub(super) fn start() -> serde_json::Value {
    let run_id = "At most 256 bytes. Without it, it follows from Idempotency-Key, or is made up.";
    let repinnable = "Whether it may move to another bundle behind a step. Default: the policy's.";
    let priority = json!({
        "type": "integer", "minimum": 1, "maximum": 5, "description": "1 first. Default: 3."
    });
    let callback = "A hook of the agent's policy that is told of the end, with the result.";
    let fairness_key =
        "Steps of one key take turns with those of others. Default: the session, or the run.";
    object(
        &[],
        &[
            ("run_id", text(run_id)),
            ("input", json!({ "description": "Any JSON, at most 2 MiB." })),
            ("labels", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
            ("entry", text("First step. Default: the bundle's.")),
            ("max_age", text("Less than the policy's: `1h`.")),
            ("delay", text("Begin so much later, on the bundle that is live then: `2h`.")),
            ("session", text("Runs of one session start on one bundle.")),
            ("repinnable", flag(repinnable)),
            ("restart_step", flag("Whether a step held past the grace is then tried again there.")),
            ("priority", priority),
            ("fairness_key", text(fairness_key)),
            ("callback", text(callback)),
            ("parent", text("A run of the same agent that this becomes a child of.")),
            ("bundle", text("Not the route's but this bundle.")),
            ("reason", text("For the event.")),
        ],
    )
}

pub(super) fn finish() -> serde_json::Value {
    let failure =
        object(&[], &[("reason", text("Short and stable.")), ("message", text("For people."))]);
    object(
        &["outcome"],
        &[
            ("outcome", words::<v1::Outcome>()),
            ("output", json!({ "description": "Any JSON, at most 2 MiB." })),
            ("failure", failure),
            ("usage", usage()),
        ],
    )
}

fn usage() -> serde_json::Value {
    let count = || json!({ "type": "integer", "minimum": 0 });
    let calls = || json!({ "type": "integer", "minimum": 0, "default": 1 });
    let model = object(
        &["model"],
        &[
            ("model", text("The name that the bundle gives it.")),
            ("served_model", text("What really served, if the provider says so.")),
            ("input_tokens", count()),
            ("output_tokens", count()),
            (
                "cost_micros",
                json!({ "type": "integer", "minimum": 0, "description": "Millionths." }),
            ),
            ("calls", calls()),
        ],
    );
    let effects = "`read_only`, `idempotent` or `destructive`; empty: it may have done anything.";
    let tool = object(
        &["tool"],
        &[("tool", text("Its name.")), ("side_effects", text(effects)), ("calls", calls())],
    );
    let list = |items: serde_json::Value| json!({ "type": "array", "items": items });
    object(&[], &[("models", list(model)), ("tools", list(tool))])
}
