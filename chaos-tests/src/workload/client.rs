//! A user's client: it draws one operation after the other and keeps what it needs for the next.

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Known, Mix, Operator};
use crate::history::{Answer, Call, Outcome, Scope};
use crate::worker::Work;

/// Keys that all clients of an agent share.
const KEYS: u32 = 6;
/// Starts that a client may ask for once more.
const REMEMBERED: usize = 64;
/// Sleeps of a long step: leases of the chaos agents last a second.
const LONG_MS: std::ops::Range<u64> = 2_000..5_000;

/// A client of one agent.
#[derive(Debug)]
pub struct Client {
    pub agent: String,
    pub external: bool,
    pub mix: Mix,
    pub operator: Operator,
    pub known: Known,
    /// Open external runs that this client started and has not finished.
    open: Vec<String>,
    /// Starts that this client asked for.
    started: Vec<Call>,
    /// Key and revision that this client read or wrote last.
    seen: Option<(String, String, u64)>,
    counter: u64,
}

impl Client {
    #[must_use]
    pub fn new(agent: &str, external: bool, mix: Mix, operator: Operator, known: Known) -> Self {
        let agent = agent.to_owned();
        Self {
            agent,
            external,
            mix,
            operator,
            known,
            open: Vec::new(),
            started: Vec::new(),
            seen: None,
            counter: 0,
        }
    }

    /// Works until it is told to stop; an operation under way is finished first.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let Some(call) = self.draw() else { continue };
            let outcome = self.operator.operate(&self.agent, call.clone()).await;
            self.learn(&call, &outcome);
            let pause = self.operator.rng.random_range(0.0..1.0);
            sleep(self.mix.pause.mul_f64(pause)).await;
        }
    }

    fn draw(&mut self) -> Option<Call> {
        let mix = self.mix;
        let mut pick = self.operator.rng.random_range(0..weight(&mix));
        let mut is = |weight: u32| {
            let hit = pick < weight;
            pick = pick.wrapping_sub(weight);
            hit
        };
        // One after the other: each call consumes its share of the draw.
        if is(mix.start) {
            return Some(self.start());
        }
        if is(mix.again) {
            return self.again();
        }
        if is(mix.finish) {
            return self.finish();
        }
        if is(mix.cancel) {
            return self.cancel();
        }
        if is(mix.look_up) {
            let run_id = self.known.any_run(&mut self.operator.rng)?;
            return Some(Call::LookupPin { run_id });
        }
        if is(mix.resolve) {
            let local = self.operator.rng.random_ratio(1, 4);
            return Some(Call::ResolveRoute { local });
        }
        if is(mix.put) {
            return Some(self.put());
        }
        if is(mix.delete) {
            let (scope, key) = (self.scope(), self.key());
            return Some(Call::PutMemory { scope, key, value: None, expected: None });
        }
        if is(mix.get) {
            return Some(self.get());
        }
        let bundle_id = self.known.any_bundle(&mut self.operator.rng)?;
        Some(Call::GetDrain { bundle_id, local: self.operator.rng.random_ratio(1, 4) })
    }

    fn start(&mut self) -> Call {
        let run_id = self.next("run");
        let rng = &mut self.operator.rng;
        let long = rng.random_range(0..100) < self.mix.long_percent;
        let sleep_ms =
            if long { rng.random_range(LONG_MS) } else { rng.random_range(0..=self.mix.step_ms) };
        let work = Work {
            left: rng.random_range(0..3),
            sleep_ms,
            checkpoint: rng.random_ratio(1, 3),
            note: rng.random_ratio(1, 3).then(|| format!("k{}", rng.random_range(0..KEYS))),
            stuck: rng.random_range(0..100) < self.mix.stuck_percent,
            deaf: long,
            stays: rng.random_ratio(1, 2),
            again: if rng.random_ratio(1, 4) { rng.random_range(1..3) } else { 0 },
            moves: rng.random_ratio(1, 2),
            by: String::new(),
        };
        let input = serde_json::json!(work).to_string();
        // Known from here on: others may look for it before it is acknowledged.
        self.known.add_run(&run_id);
        let call = Call::StartRun { run_id, input, bundle_id: String::new() };
        if self.started.len() < REMEMBERED {
            self.started.push(call.clone());
        }
        call
    }

    fn again(&mut self) -> Option<Call> {
        if self.started.is_empty() {
            return None;
        }
        let index = self.operator.rng.random_range(0..self.started.len());
        self.started.get(index).cloned()
    }

    fn finish(&mut self) -> Option<Call> {
        if self.open.is_empty() {
            return None;
        }
        let index = self.operator.rng.random_range(0..self.open.len());
        let run_id = self.open.swap_remove(index);
        let output = format!("\"{}\"", self.next("out"));
        Some(Call::FinishRun { run_id, output })
    }

    fn cancel(&mut self) -> Option<Call> {
        let run_id = self.known.any_run(&mut self.operator.rng)?;
        Some(Call::CancelRun { run_id })
    }

    fn put(&mut self) -> Call {
        let value = Some(format!("\"{}\"", self.next("value")));
        let conditional = self.operator.rng.random_ratio(1, 5);
        if conditional && let Some((bundle_id, key, revision)) = self.seen.take() {
            let scope = Scope::Bundle(bundle_id);
            return Call::PutMemory { scope, key, value, expected: Some(revision) };
        }
        Call::PutMemory { scope: self.scope(), key: self.key(), value, expected: None }
    }

    fn get(&mut self) -> Call {
        let (scope, key) = (self.scope(), self.key());
        let known = self.known.newest_revision();
        let rng = &mut self.operator.rng;
        let local = rng.random_ratio(1, 5);
        let past = known > 0 && rng.random_ratio(1, 8);
        let at_revision = if past { rng.random_range(1..=known) } else { 0 };
        if rng.random_ratio(1, 8)
            && let Some(run_id) = self.known.any_run(rng)
        {
            return Call::GetMemory { scope: Scope::Run(run_id), key, at_revision, local };
        }
        Call::GetMemory { scope, key, at_revision, local }
    }

    fn scope(&mut self) -> Scope {
        let rng = &mut self.operator.rng;
        if rng.random_ratio(2, 3) {
            return Scope::Bundle(String::new());
        }
        Scope::Bundle(self.known.any_bundle(rng).unwrap_or_default())
    }

    fn key(&mut self) -> String {
        format!("k{}", self.operator.rng.random_range(0..KEYS))
    }

    fn learn(&mut self, call: &Call, outcome: &Outcome) {
        let Outcome::Ok { revision, answer } = outcome else { return };
        self.known.saw_revision(*revision);
        match (call, answer) {
            (Call::StartRun { run_id, .. }, Answer::Started { already: false, .. })
                if self.external =>
            {
                self.open.push(run_id.clone());
            }
            (
                Call::PutMemory { scope: Scope::Bundle(bundle), key, .. },
                Answer::Wrote { key_revision, .. },
            ) => self.seen = Some((bundle.clone(), key.clone(), *key_revision)),
            (
                Call::GetMemory { scope: Scope::Bundle(bundle), key, at_revision: 0, .. },
                Answer::Read { version, .. },
            ) => {
                let revision = version.as_ref().map_or(0, |version| version.revision);
                self.seen = Some((bundle.clone(), key.clone(), revision));
            }
            _ => {}
        }
    }

    fn next(&mut self, what: &str) -> String {
        self.counter += 1;
        format!("{what}-{}-{}-{}", self.agent, self.operator.client, self.counter)
    }
}

fn weight(mix: &Mix) -> u32 {
    mix.start
        + mix.again
        + mix.finish
        + mix.cancel
        + mix.look_up
        + mix.resolve
        + mix.put
        + mix.delete
        + mix.get
        + mix.drain
}

/// A generator for one client of a seed.
#[must_use]
pub fn rng(seed: u64, client: u32) -> StdRng {
    use rand::SeedableRng;
    StdRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(u64::from(client)))
}
