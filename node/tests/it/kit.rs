//! The test kit for users' agents. The first test is the example of docs/WORKERS.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pinrail_client::worker::Usage;

// example
use std::time::Duration;

use pinrail_client::testing::{TestAgent, bundle};
use pinrail_client::v1::RunState;
use pinrail_client::worker::{Next, StepContext, StepResult};
use pinrail_node::testing::Cluster;

async fn plan(ctx: StepContext, what: String) -> StepResult<Next> {
    let text = ctx.checkpoint("text", async || StepResult::Ok(format!("Remember {what}!"))).await?;
    Ok(Next::sleep(Duration::from_secs(5 * 3600)).then("say", text))
}

async fn say(ctx: StepContext, text: String) -> StepResult<Next> {
    ctx.memory().put(["said", "last"], &text).await?;
    Ok(Next::done(text))
}

#[tokio::test]
async fn it_reminds_after_five_hours() -> pinrail_client::Result<()> {
    let cluster = Cluster::start(1).await;
    let mut agent = TestAgent::new(cluster.endpoints(), "reminder", bundle()).await?;
    agent.work(|worker| worker.step("main", plan).step("say", say));
    let run = agent.start("the milk").await?;
    agent.until(&run, RunState::Waiting).await?;
    cluster.advance(Duration::from_secs(5 * 3600));
    assert_eq!(agent.result::<String>(&run).await?, "Remember the milk!");
    assert_eq!(agent.memory("said/last").await?, Some("Remember the milk!".to_owned()));
    agent.stop_worker().await?;
    cluster.stop_all().await;
    Ok(())
}
// end of the example

#[test]
fn the_page_shows_the_example_as_it_is() {
    let code = include_str!("kit.rs").split("// example\n").nth(1).expect("it begins");
    let code = code.split("// end of the example").next().expect("it ends");
    let page = include_str!("../../../docs/WORKERS.md");
    assert!(page.contains(code.trim()), "docs/WORKERS.md shows another example");
}

async fn end(_: StepContext, reply: u32) -> StepResult<Next> {
    Ok(Next::done(reply))
}

#[tokio::test]
async fn a_killed_workers_step_goes_on_behind_its_last_checkpoint() -> pinrail_client::Result<()> {
    let cluster = Cluster::start(1).await;
    let mut agent = TestAgent::new(cluster.endpoints(), "asker", bundle()).await?;
    let asked = Arc::new(AtomicU32::new(0));
    let (reached, mut there) = tokio::sync::mpsc::channel(1);
    let step = {
        let asked = Arc::clone(&asked);
        move |ctx: StepContext, (): ()| {
            let (asked, reached) = (Arc::clone(&asked), reached.clone());
            async move {
                let reply: u32 = ctx
                    .checkpoint("model", async || {
                        ctx.report(Usage { output_tokens: 1, ..Usage::default() });
                        StepResult::Ok(asked.fetch_add(1, Ordering::Relaxed) + 1)
                    })
                    .await?;
                if ctx.attempt() == 1 {
                    reached.send(()).await.expect("the test waits");
                    std::future::pending::<()>().await;
                }
                StepResult::Ok(Next::wait("go").then("end", reply))
            }
        }
    };
    agent.work(|worker| worker.step("main", step.clone()).step("end", end));
    let run = agent.start(()).await?;
    there.recv().await.expect("the step comes so far");
    agent.kill_worker();
    agent.work(|worker| worker.step("main", step).step("end", end));
    agent.until(&run, RunState::Waiting).await?;
    agent.signal(&run, "go", true).await?;
    assert_eq!(agent.result::<u32>(&run).await?, 1, "the model was asked once");
    let attempts: Vec<u32> = agent.steps(&run).await?.iter().map(|step| step.attempt).collect();
    assert_eq!(attempts, [2, 1]);
    agent.stop_worker().await?;
    cluster.stop_all().await;
    Ok(())
}
