//! Users of the demonstration: they start runs of every sort, and write memory.

use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::sleep;

use super::stage::{AGENT, FLEET};
use crate::history::{Answer, Call, Outcome, Scope};
use crate::workload::Operator;

/// Questions that the corpus of the example can answer.
const QUESTIONS: &[&str] = &[
    "Why must a failed fsync not be retried?",
    "What does a fencing token protect against?",
    "How does a canary differ from a shadow?",
    "When is a retry safe?",
    "How does BM25 rank documents?",
    "What is a blue-green deployment?",
];

/// What a run is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Short,
    Long,
    /// Lasts until it is cancelled.
    NeverEnding,
    /// Does not even listen when it is cancelled.
    Stubborn,
    External,
}

/// How many of each.
pub(super) const FIRST_WAVE: &[(Sort, usize)] = &[
    (Sort::Short, 120),
    (Sort::Long, 30),
    (Sort::NeverEnding, 6),
    (Sort::Stubborn, 4),
    (Sort::External, 30),
];
pub(super) const SECOND_WAVE: &[(Sort, usize)] =
    &[(Sort::Short, 60), (Sort::Long, 10), (Sort::NeverEnding, 3), (Sort::External, 10)];
/// Keys of the operator's memory.
pub(super) const KEYS: usize = 20;

/// Starts a wave of runs; gives how many.
pub(super) async fn wave(operator: &mut Operator, name: &str, sorts: &[(Sort, usize)]) -> usize {
    let mut started = 0;
    for (sort, count) in sorts {
        for number in 0..*count {
            let run_id = format!("{name}-{sort:?}-{number}").to_lowercase();
            started += usize::from(start(operator, &run_id, *sort).await);
        }
    }
    started
}

/// Starts one run; whether that was acknowledged.
pub(super) async fn start(operator: &mut Operator, run_id: &str, sort: Sort) -> bool {
    let question = QUESTIONS[operator.rng.random_range(0..QUESTIONS.len())];
    let user = format!("user-{}", operator.rng.random_range(0..8));
    let input = match sort {
        Sort::Short => serde_json::json!({ "question": question, "user": user }),
        Sort::Long => {
            let think_ms = operator.rng.random_range(2_000..5_000);
            serde_json::json!({ "question": question, "think_ms": think_ms })
        }
        Sort::NeverEnding => serde_json::json!({ "question": question, "never_end": true }),
        Sort::Stubborn => {
            serde_json::json!({ "question": question, "never_end": true, "stubborn": true })
        }
        Sort::External => serde_json::json!({ "ticket": run_id }),
    };
    let agent = if sort == Sort::External { FLEET } else { AGENT };
    let call = Call::StartRun {
        run_id: run_id.to_owned(),
        input: input.to_string(),
        bundle_id: String::new(),
    };
    matches!(operator.operate(agent, call).await, Outcome::Ok { .. })
}

/// Ends every external run whose number says so; the others are left to the cap.
pub(super) async fn finish_external(operator: &mut Operator, name: &str, count: usize) -> usize {
    let mut finished = 0;
    for number in (0..count).filter(|number| number % 3 != 0) {
        let run_id = format!("{name}-external-{number}");
        let call = Call::FinishRun { run_id, output: "\"done elsewhere\"".to_owned() };
        finished += usize::from(matches!(operator.operate(FLEET, call).await, Outcome::Ok { .. }));
    }
    finished
}

/// Writes every key of the operator's memory into the live layer.
pub(super) async fn write_memory(operator: &mut Operator, what: &str) {
    for number in 0..KEYS {
        let call = Call::PutMemory {
            scope: Scope::Bundle(String::new()),
            key: format!("team/note-{number}"),
            value: Some(format!("\"{what} {number}\"")),
            expected: None,
        };
        operator.operate(AGENT, call).await;
    }
}

/// How many keys of the live layer hold what was written under this name.
pub(super) async fn memory_says(operator: &mut Operator, what: &str) -> usize {
    let mut found = 0;
    for number in 0..KEYS {
        let call = Call::GetMemory {
            scope: Scope::Bundle(String::new()),
            key: format!("team/note-{number}"),
            at_revision: 0,
            local: false,
        };
        let expected = format!("\"{what} {number}\"");
        if let Outcome::Ok { answer: Answer::Read { version: Some(version), .. }, .. } =
            operator.operate(AGENT, call).await
        {
            found += usize::from(version.value == expected);
        }
    }
    found
}

/// A trickle of short runs until it is told to stop.
pub(super) async fn trickle(mut operator: Operator, stop: watch::Receiver<bool>) -> usize {
    let mut started = 0;
    while !*stop.borrow() {
        let run_id = format!("trickle-{}-{started}", operator.client);
        started += 1;
        start(&mut operator, &run_id, Sort::Short).await;
        sleep(Duration::from_millis(90)).await;
    }
    started
}
