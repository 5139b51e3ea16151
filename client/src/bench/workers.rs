//! Workers in the generator, and what their handlers do where nothing else is asked of them.

use tokio::task::JoinSet;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::ground::{CODE, MEASURED};
use crate::client::Client;
use crate::error::Result;
use crate::worker::{Next, StepContext, Worker, WorkerBuilder};

/// The first step of every run.
pub(super) const STEP: &str = "main";
/// Steps of a long run.
pub(super) const STEPS: u32 = 10;

/// Workers of an agent, one for each client, which share so many slots.
pub(super) struct Workers {
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

impl Workers {
    /// Starts them; `serve` gives them their handlers.
    pub(super) fn start(
        clients: &[Client],
        agent: &str,
        slots: usize,
        serve: impl Fn(WorkerBuilder) -> WorkerBuilder,
    ) -> Workers {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let each = u32::try_from(slots.div_ceil(clients.len())).unwrap_or(u32::MAX);
        for client in clients {
            let worker = Worker::builder(client.clone())
                .agent(agent)
                .bundle(MEASURED)
                .code(CODE)
                .slots(each)
                .shutdown_grace(Duration::ZERO);
            tasks.spawn(serve(worker).run_until(stop.clone().cancelled_owned()));
        }
        Workers { stop, tasks }
    }

    /// Stops them; what they hold is handed back.
    ///
    /// # Errors
    /// Why the cluster did not want one of them.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(error)) = ended {
                first = first.and(Err(error));
            }
        }
        first
    }
}

/// The only step of a run: it answers with what it was asked.
pub(super) fn echo(worker: WorkerBuilder) -> WorkerBuilder {
    worker.step(STEP, |_: StepContext, input: String| async { Ok(Next::done(input)) })
}

/// The steps of a long run: each asks the next one what it was asked, and the last one answers with it.
pub(super) fn relay(worker: WorkerBuilder) -> WorkerBuilder {
    (1..=STEPS).fold(worker, |worker, step| {
        worker.step(name(step), move |_: StepContext, input: String| async move {
            Ok(if step < STEPS { Next::step(name(step + 1), input) } else { Next::done(input) })
        })
    })
}

fn name(step: u32) -> String {
    if step == 1 { STEP.to_owned() } else { format!("{STEP}-{step}") }
}
