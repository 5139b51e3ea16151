//! The worker runtime: pulls the steps of one bundle, runs their handlers, and reports.
//!
//! ```no_run
//! use pinrail_client::worker::{Next, StepContext, StepResult, shutdown_signal};
//! use pinrail_client::{Client, Worker};
//!
//! async fn greet(ctx: StepContext, name: String) -> StepResult<Next> {
//!     let text: String = ctx.checkpoint("text", async || StepResult::Ok(format!("Hello {name}"))).await?;
//!     ctx.memory().put(["greeted", &name], &true).await?;
//!     Ok(Next::done(text))
//! }
//!
//! # async fn example() -> pinrail_client::Result<()> {
//! let client = Client::connect_from_env().await?;
//! Worker::builder(client).agent("hello").bundle("v1").step("main", greet).run_until(shutdown_signal()).await
//! # }
//! ```
//!
//! Handlers run as tasks. One that blocks its thread should use `spawn_blocking`: on a current-thread runtime nothing
//! else runs meanwhile, heartbeats included. This module must not know how the cluster decides who gets a step.

mod builder;
mod bundle;
mod context;
mod execute;
mod handler;
mod held;
mod join;
mod journal;
mod link;
mod memory;
mod outbox;
mod outcome;
mod runtime;
mod seen;
mod shutdown;
mod slots;
mod start;
mod tool;
mod usage;

pub use builder::{Worker, WorkerBuilder};
pub use bundle::{BundleView, DEFAULT};
pub use context::{CancelReason, StepContext, Usage};
pub use execute::{CANCELLED, START_TO_CLOSE};
pub use handler::{HANDLER_PANICKED, StepOptions};
pub use join::{Branch, BranchError};
pub use memory::{Entry, MemoryKey, StepMemory};
pub use outcome::{Child, FanOut, Next, STEP_ERROR, StepError, StepResult, Wait, WaitFor};
pub use runtime::STEP_NOT_SERVED;
pub use seen::ToolsSeen;
pub use shutdown::shutdown_signal;
pub use tool::{TOOL_ARGUMENTS, TOOL_NOT_FOUND, ToolCall};
