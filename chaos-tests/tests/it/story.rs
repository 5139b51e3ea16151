//! A short, correct story of one agent, from which the bad ones are made.
//!
//! ```text
//! revision  10 switch v1 (epoch 1)   12 run a   13 a's lease   14 put k=x   16 checkpoint   18 a writes note   19 a done
//!           20 switch v2 (epoch 2)   22 run b   24 put k=y     26 external e   27 e is finished
//!           30 rollback to v1 (epoch 3)   32 run c   40 c is ended by the drain cap of a later switch to v3 (epoch 4, 34)
//!           36 run d   37 d's lease   38 d is continued as d+1, leased to the same worker   39 d+1 done
//! ```

use pinrail_chaos_tests::history::{
    AgentFinal, Answer, Call, Entry, Evidence, InFlight, Outcome, Pin, RunFinal, Scope, StepFinal,
    Version, VersionFinal, WorkerEvent, WorkerLine,
};

pub(crate) const AGENT: &str = "support";

pub(crate) const GRACE_MS: u64 = 1_000;

pub(crate) fn pin(bundle: &str, layer: u64, epoch: u64, revision: u64) -> Pin {
    Pin { bundle_id: bundle.to_owned(), layer, epoch, revision, expires_at_ms: 1_000_000 }
}

pub(crate) fn start(run: &str) -> Call {
    Call::StartRun { run_id: run.into(), input: "{}".into(), bundle_id: String::new() }
}

pub(crate) fn put(key: &str, value: &str) -> Call {
    Call::PutMemory {
        scope: Scope::Bundle(String::new()),
        key: key.into(),
        value: Some(value.into()),
        expected: None,
    }
}

pub(crate) fn get(bundle: &str, key: &str) -> Call {
    Call::GetMemory {
        scope: Scope::Bundle(bundle.into()),
        key: key.into(),
        at_revision: 0,
        local: false,
    }
}

pub(crate) fn read(value: &str, revision: u64, layer: u64) -> Answer {
    Answer::Read { version: Some(Version { value: value.into(), revision, layer }), layer }
}

pub(crate) fn moved(from: &str, to: &str, epoch: u64, deadline_ms: u64) -> Answer {
    let drained_by_ms = if deadline_ms == 0 { 0 } else { deadline_ms + GRACE_MS };
    Answer::Moved {
        from: from.into(),
        to: to.into(),
        epoch,
        already: false,
        drain_deadline_ms: deadline_ms,
        drained_by_ms,
    }
}

/// Evidence under construction; each call takes a millisecond and one follows the other.
pub(crate) struct Story {
    pub(crate) evidence: Evidence,
    now_us: u64,
    operation: u64,
}

impl Story {
    pub(crate) fn ok(&mut self, call: Call, revision: u64, answer: Answer) -> &mut Self {
        self.push(call, Outcome::Ok { revision, answer })
    }

    pub(crate) fn push(&mut self, call: Call, outcome: Outcome) -> &mut Self {
        self.operation += 1;
        self.evidence.history.push(Entry {
            client: 0,
            node: 0,
            operation: self.operation,
            request_id: String::new(),
            invoked_us: self.now_us,
            returned_us: self.now_us + 1_000,
            agent: AGENT.to_owned(),
            call,
            outcome,
        });
        self.now_us += 2_000;
        self
    }

    fn route(&mut self, to: &str, epoch: u64, revision: u64) -> &mut Self {
        let answer = Answer::Route { bundle_id: to.into(), epoch, changed_revision: revision };
        self.ok(Call::ReadRoute, revision, answer)
    }

    pub(crate) fn drain(
        &mut self,
        bundle: &str,
        revision: u64,
        open: u64,
        now_ms: u64,
    ) -> &mut Self {
        let answer = Answer::Drain {
            open,
            deadline_ms: 0,
            drained_by_ms: 0,
            over: open == 0,
            cluster_time_ms: now_ms,
        };
        self.ok(Call::GetDrain { bundle_id: bundle.into(), local: false }, revision, answer)
    }

    pub(crate) fn final_of(&mut self) -> &mut AgentFinal {
        &mut self.evidence.finals[0]
    }

    pub(crate) fn run(&mut self, run: &str) -> &mut RunFinal {
        self.final_of().runs.iter_mut().find(|one| one.run_id == run).expect("the story has it")
    }

    pub(crate) fn entry(&mut self, which: impl Fn(&Call) -> bool) -> &mut Entry {
        self.evidence.history.iter_mut().find(|entry| which(&entry.call)).expect("the story has it")
    }
}

pub(crate) fn line(run: &str, token: u64, code: &str, event: WorkerEvent) -> WorkerLine {
    WorkerLine {
        at_us: 0,
        worker_id: "w1".into(),
        code: code.into(),
        agent: AGENT.into(),
        run_id: run.into(),
        step: 1,
        attempt: 1,
        token,
        event,
    }
}

pub(crate) fn began(bundle: &str, checkpoints: &[&str]) -> WorkerEvent {
    let checkpoints = checkpoints.iter().map(|name| (*name).to_owned()).collect();
    WorkerEvent::Began { bundle_id: bundle.into(), checkpoints }
}

pub(crate) fn completed(mark: &str, revision: u64) -> WorkerEvent {
    WorkerEvent::Completed { mark: mark.into(), revision, closed: true }
}

fn run(run_id: &str, pin: Pin, state: &str, revision: u64) -> RunFinal {
    RunFinal {
        run_id: run_id.into(),
        pin,
        state: state.into(),
        ended_at_ms: 1,
        revision,
        ..RunFinal::default()
    }
}

/// The correct story.
pub(crate) fn good() -> Story {
    let mut story = Story { evidence: Evidence::default(), now_us: 10_000_000, operation: 0 };
    let started = |bundle, layer, epoch, revision| Answer::Started {
        pin: pin(bundle, layer, epoch, revision),
        already: false,
    };
    story
        .ok(Call::Switch { bundle_id: "v1".into() }, 10, moved("", "v1", 1, 0))
        .route("v1", 1, 10)
        .ok(start("a"), 12, started("v1", 1, 1, 12))
        .ok(put("k", "x"), 14, Answer::Wrote { key_revision: 14, layer: 1 })
        .ok(get("", "k"), 15, read("x", 14, 1))
        .drain("v1", 16, 1, 2_000)
        .ok(Call::Switch { bundle_id: "v2".into() }, 20, moved("v1", "v2", 2, 8_000))
        .route("v2", 2, 20)
        .ok(start("b"), 22, started("v2", 2, 2, 22))
        .ok(put("k", "y"), 24, Answer::Wrote { key_revision: 24, layer: 2 })
        .ok(get("", "k"), 25, read("y", 24, 2))
        .ok(get("v1", "k"), 25, read("x", 14, 1))
        .ok(start("e"), 26, started("v2", 2, 2, 26))
        .ok(
            Call::FinishRun { run_id: "e".into(), output: "fin".into() },
            27,
            Answer::Ended { state: "completed".into(), already: false },
        )
        .drain("v2", 28, 1, 3_000)
        .ok(
            Call::Rollback { from_bundle_id: "v2".into(), in_flight: InFlight::Keep },
            30,
            moved("v2", "v1", 3, 9_000),
        )
        .route("v1", 3, 30)
        .ok(get("", "k"), 31, read("x", 14, 1))
        .ok(start("c"), 32, started("v1", 1, 3, 32))
        .ok(Call::Switch { bundle_id: "v3".into() }, 34, moved("v1", "v3", 4, 10_000))
        .route("v3", 4, 34)
        .drain("v1", 35, 1, 4_000)
        .ok(start("d"), 36, started("v3", 3, 4, 36));
    story.evidence.worker_log = vec![
        line("a", 13, "code-v1", began("v1", &[])),
        line(
            "a",
            13,
            "code-v1",
            WorkerEvent::CheckpointAcked { name: "found".into(), revision: 16 },
        ),
        line("a", 13, "code-v1", WorkerEvent::MemoryAsked { key: "n".into(), value: "m".into() }),
        line(
            "a",
            13,
            "code-v1",
            WorkerEvent::MemoryAcked { key: "n".into(), value: "m".into(), revision: 18 },
        ),
        line("a", 13, "code-v1", completed("a/1/13", 19)),
        line("b", 23, "code-v2", began("v2", &[])),
        line("b", 23, "code-v2", completed("b/1/23", 29)),
        line("d", 37, "code-v3", began("v3", &[])),
        line("d", 37, "code-v3", completed("d/1/37", 38)),
        line("d+1", 38, "code-v3", began("v3", &[])),
        line("d+1", 38, "code-v3", completed("d+1/1/38", 39)),
    ];
    story.evidence.finals = vec![final_read()];
    story
}

fn final_read() -> AgentFinal {
    let step = |input: &str| StepFinal {
        number: 1,
        name: "main".into(),
        state: "completed".into(),
        attempt: 1,
        bundle_id: String::new(),
        input: input.into(),
    };
    let mut a = run("a", pin("v1", 1, 1, 12), "completed", 19);
    (a.output, a.steps) = ("by a/1/13".into(), vec![step("")]);
    let mut b = run("b", pin("v2", 2, 2, 22), "completed", 29);
    (b.output, b.steps) = ("by b/1/23".into(), vec![step("")]);
    let mut e = run("e", pin("v2", 2, 2, 26), "completed", 27);
    (e.output, e.external) = ("fin".into(), true);
    let mut c = run("c", pin("v1", 1, 3, 32), "cancelled", 40);
    (c.end_reason, c.ended_at_ms) = ("drain_cap".into(), 10_500);
    let mut d = run("d", pin("v3", 3, 4, 36), "continued", 38);
    (d.continued_to, d.steps) = ("d+1".into(), vec![step("")]);
    let mut next = run("d+1", pin("v3", 3, 4, 38), "completed", 39);
    (next.first_run_id, next.steps) = ("d".into(), vec![step("by d/1/37")]);
    next.output = "by d+1/1/38".into();
    let version = |key: &str, revision, layer, value: &str, run_id: &str| VersionFinal {
        key: key.into(),
        revision,
        layer,
        value: Some(value.into()),
        run_id: run_id.into(),
    };
    AgentFinal {
        agent: AGENT.into(),
        live_bundle_id: "v3".into(),
        epoch: 4,
        code: ["v1", "v2", "v3"].map(|v| (v.to_owned(), format!("code-{v}"))).into(),
        runs: vec![a, b, c, d, next, e],
        versions: vec![
            version("k", 14, 1, "x", ""),
            version("n", 18, 1, "m", "a"),
            version("k", 24, 2, "y", ""),
        ],
        layers: vec![1, 2, 3],
        grace_ms: GRACE_MS,
        cluster_time_ms: 30_000,
        events: Vec::new(),
    }
}
