//! The loop of a worker: one stream at a time, the steps as tasks of their own, and everything that outlives a stream.
//!
//! ```text
//! no stream --open--> greeted --welcome--> pulling --lost--> no stream      (steps and outbox go on)
//! pulling --stop--> stopping: asks for nothing, waits for the steps, hands back what is left --> over
//! ```
//! Handlers run in tasks of their own, so heartbeats and answers never wait for one. The loop awaits nothing but its
//! next event. It must not know what steps do. What the stream's events mean is in `stream`, what becomes of a step
//! in `steps`.

mod steps;
mod stream;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use pinrail_proto::v1::{self, work_request};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, Interval, interval};

use crate::client::Client;
use crate::error::Result;
use crate::worker::bundle::BundleView;
use crate::worker::context::{CancelReason, Command, Signal, StepContext};
use crate::worker::execute::{Finished, at};
use crate::worker::handler::Handlers;
use crate::worker::held::{Lease, Token};
use crate::worker::link::{Link, OpenError, open};
use crate::worker::outbox::Outbox;
use crate::worker::seen::ToolsSeen;
use crate::worker::slots::Slots;

pub use steps::STEP_NOT_SERVED;
use stream::{opened, received};

/// Messages of steps that wait for the loop.
const COMMANDS: usize = 1_024;
/// After the grace of a shutdown: time for the last answers.
const FLUSH: Duration = Duration::from_secs(5);
/// Heartbeats when the welcome does not say.
const HEARTBEAT: Duration = Duration::from_secs(10);

type Opening = BoxFuture<'static, std::result::Result<(Link, v1::Welcome), OpenError>>;

/// What the builder decided.
pub(crate) struct Plan {
    pub(crate) client: Client,
    pub(crate) hello: v1::WorkerHello,
    pub(crate) handlers: Handlers,
    pub(crate) shutdown_grace: Duration,
    pub(crate) tools: ToolsSeen,
}

/// A step at work.
struct Running {
    tell: watch::Sender<Signal>,
    context: StepContext,
}

/// A worker at work.
pub(crate) struct Runtime {
    plan: Plan,
    /// Known from the first welcome on.
    bundle: Option<Arc<BundleView>>,
    /// As the newest welcome says.
    usage_at_once: bool,
    commands: mpsc::Receiver<Command>,
    to_loop: mpsc::Sender<Command>,
    link: Option<Link>,
    opening: Option<Opening>,
    /// When to try again after a stream that could not be opened.
    open_at: Option<Instant>,
    failures: u32,
    refusals: u32,
    outbox: Outbox,
    /// Leases until the cluster said that they are over.
    held: BTreeMap<Token, Lease>,
    running: BTreeMap<Token, Running>,
    tasks: JoinSet<Finished>,
    slots: Slots,
    heartbeat: Interval,
    crowded_until: Option<Instant>,
    stop_at: Option<Instant>,
    draining: bool,
    /// What the present stream was told of the tools, by its version.
    told_tools: u64,
}

impl Runtime {
    pub(crate) fn new(plan: Plan) -> Runtime {
        let (to_loop, commands) = mpsc::channel(COMMANDS);
        let slots = Slots::new(plan.hello.slots);
        Runtime {
            plan,
            bundle: None,
            usage_at_once: false,
            commands,
            to_loop,
            link: None,
            opening: None,
            open_at: Some(Instant::now()),
            failures: 0,
            refusals: 0,
            outbox: Outbox::default(),
            held: BTreeMap::new(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            slots,
            heartbeat: interval(HEARTBEAT),
            crowded_until: None,
            stop_at: None,
            draining: false,
            told_tools: 0,
        }
    }

    /// Works until `stop` is ready and nothing is held any more, or until the cluster refuses the worker.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        tokio::pin!(stop);
        loop {
            let now = Instant::now();
            self.pump(now);
            if self.is_over(now) {
                return Ok(());
            }
            let wake = self.wake_at();
            tokio::select! {
                opened = opened(&mut self.opening) => self.opened(opened)?,
                message = received(&mut self.link) => self.received(message),
                Some(command) = self.commands.recv() => self.command(command),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(finished) = done {
                        self.finished(finished);
                    }
                }
                _ = self.heartbeat.tick(), if self.link.is_some() => self.beat(),
                () = at(wake) => {}
                () = &mut stop, if self.stop_at.is_none() => self.stop(),
            }
        }
    }

    /// Sends what is due and asks for what fits; opens a stream when there is none.
    fn pump(&mut self, now: Instant) {
        if self.link.is_none() && self.opening.is_none() && self.open_at.is_none_or(|at| at <= now)
        {
            self.open_at = None;
            self.opening = Some(open(self.plan.client.clone(), self.hello()).boxed());
        }
        if self.crowded_until.is_some_and(|until| until > now) {
            return;
        }
        self.crowded_until = None;
        while let Some((sequence, request)) = self.outbox.due(now) {
            if !self.send(request) {
                return;
            }
            self.outbox.mark_sent(sequence);
        }
        let credits = if self.takes_work() { self.slots.grant(self.held.len(), now) } else { 0 };
        if credits > 0 {
            let credit = work_request::Message::Credit(v1::Credit { slots: credits });
            if self.send(v1::WorkRequest { sequence: 0, message: Some(credit) }) {
                self.slots.granted(credits);
            }
        }
    }

    fn takes_work(&self) -> bool {
        self.link.is_some() && self.stop_at.is_none() && !self.draining
    }

    /// Asks for no more work and tells the steps; they have the grace to end.
    fn stop(&mut self) {
        let until = Instant::now() + self.plan.shutdown_grace;
        tracing::info!(held = self.held.len(), "worker is stopping");
        self.stop_at = Some(until);
        for running in self.running.values() {
            running.tell.send_if_modified(|signal| {
                let tells = matches!(signal, Signal::Run);
                if tells {
                    *signal = Signal::Stop { reason: CancelReason::Shutdown, until };
                }
                tells
            });
        }
        self.beat();
    }

    fn is_over(&self, now: Instant) -> bool {
        let nothing_left =
            self.held.is_empty() && self.running.is_empty() && self.outbox.is_empty();
        match self.stop_at {
            Some(until) => nothing_left || now >= until + FLUSH,
            None => self.draining && nothing_left,
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let sends = self.link.is_some() && self.crowded_until.is_none();
        let outbox = self.outbox.next_due().filter(|_| sends);
        let open_at = self.open_at.filter(|_| self.link.is_none() && self.opening.is_none());
        let over_at = self.stop_at.map(|until| until + FLUSH);
        let kept = self.slots.next_due().filter(|_| sends && self.takes_work());
        [outbox, open_at, over_at, kept, self.crowded_until].into_iter().flatten().min()
    }
}
