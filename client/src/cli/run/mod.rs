//! `run`: executions of an agent.

use clap::Subcommand;

use super::context::{Context, Done};

mod cancel_all;
mod end;
mod explain;
mod read;
mod result;
mod score;
mod signal;
mod start;
mod watch;

pub(super) use result::value;

/// Verbs of `run`.
#[derive(Debug, Clone, Subcommand)]
pub enum Run {
    /// Start a run; it stays on the bundle that it starts on
    #[command(
        after_help = "Examples:\n  pinrail run start support --input '{\"question\":\"Where is my refund?\"}' --wait\n  pinrail run start support --input @question.json --label task_kind=refund"
    )]
    Start(Box<start::Start>),
    /// List the runs of an agent, newest first
    #[command(
        after_help = "Examples:\n  pinrail run list support --bundle v42 --state running\n  pinrail run list support --open --older-than 2h -o name\n  pinrail run list support --state failed --label task_kind=refund\n  pinrail run list support --waiting-for approved"
    )]
    List(read::List),
    /// Show a run with its input and output
    #[command(
        after_help = "Example:\n  pinrail run show 1f0c2d3e-00000000000000000000000000000007"
    )]
    Show(read::Show),
    /// The steps of a run
    #[command(
        after_help = "Example:\n  pinrail run steps 1f0c2d3e-00000000000000000000000000000007"
    )]
    Steps(read::Steps),
    /// The run, its bundle, the bundle before it, and what differs between them
    #[command(
        after_help = "Example:\n  pinrail run explain 1f0c2d3e-00000000000000000000000000000007"
    )]
    Explain(explain::Explain),
    /// Follow the changes of a run until it is over; exits 11 when it did not complete
    #[command(
        after_help = "Example:\n  pinrail run watch 1f0c2d3e-00000000000000000000000000000007"
    )]
    Watch(watch::Watch),
    /// The result of a run; exits 11 when it did not complete, 5 when it is not over
    #[command(
        after_help = "Example:\n  pinrail run result 1f0c2d3e-00000000000000000000000000000007 --wait --timeout 5m"
    )]
    Result(result::ResultOf),
    /// Ask a run to end
    #[command(
        after_help = "Example:\n  pinrail run cancel 1f0c2d3e-00000000000000000000000000000007 --reason \"SUP-812\""
    )]
    Cancel(end::Cancel),
    /// Ask all open runs of an agent to end, or those that the flags name
    #[command(
        after_help = "Examples:\n  pinrail run cancel-all support --bundle v42 --dry-run\n  pinrail run cancel-all support --state waiting --older-than 2h --reason \"SUP-812\" --yes"
    )]
    CancelAll(cancel_all::CancelAll),
    /// Let a paused run go on: its dead step, or from the beginning when it was held from a restart
    #[command(
        after_help = "Examples:\n  pinrail run list support --state paused\n  pinrail run retry 1f0c2d3e-00000000000000000000000000000007 --reason \"the provider is back\""
    )]
    Retry(end::Retry),
    /// The brake of one run: held steps finish, nothing new is leased, and its pin still ends
    #[command(
        after_help = "Example:\n  pinrail run pause 1f0c2d3e-00000000000000000000000000000007 --reason \"SUP-812\""
    )]
    Pause(end::Pause),
    /// Let a run go on that somebody paused
    #[command(
        after_help = "Examples:\n  pinrail run list support --state paused\n  pinrail run resume 1f0c2d3e-00000000000000000000000000000007"
    )]
    Resume(end::Resume),
    /// Move a repinnable run to another bundle: at once, or behind the steps that workers hold
    #[command(
        after_help = "Examples:\n  pinrail run repin 1f0c2d3e-00000000000000000000000000000007 --reason \"SUP-812\"\n  pinrail run repin order-77 --agent support --bundle v43"
    )]
    Repin(end::Repin),
    /// Send a signal: it ends the run's wait for it, or is kept until the run waits for it
    #[command(
        after_help = "Examples:\n  pinrail run signal 1f0c2d3e-00000000000000000000000000000007 approved --value '{\"by\":\"ada\"}'\n  pinrail run signal order-77 paid --agent support"
    )]
    Signal(signal::Signal),
    /// Say how good the answer of a run was; the same source again replaces what it said before
    #[command(
        after_help = "Examples:\n  pinrail run score 1f0c2d3e-00000000000000000000000000000007 0.9 --comment \"right, but long\"\n  pinrail run score order-77 fail --agent support --by judge"
    )]
    Score(score::Score),
    /// End an external run; the first call wins
    #[command(
        after_help = "Example:\n  pinrail run finish order-77 --agent support --outcome completed --result '{\"ok\":true}'"
    )]
    Finish(end::Finish),
    /// Say that an external run is alive
    #[command(after_help = "Example:\n  pinrail run keep order-77 --agent support")]
    Keep(end::Keep),
}

pub(super) async fn run(context: &Context, verb: &Run) -> Done {
    match verb {
        Run::Start(args) => start::start(context, args).await,
        Run::List(args) => read::list(context, args).await,
        Run::Show(args) => read::show(context, args).await,
        Run::Steps(args) => read::steps(context, args).await,
        Run::Explain(args) => explain::explain(context, args).await,
        Run::Watch(args) => watch::watch(context, args).await,
        Run::Result(args) => result::result(context, args).await,
        Run::Cancel(args) => end::cancel(context, args).await,
        Run::CancelAll(args) => cancel_all::cancel_all(context, args).await,
        Run::Retry(args) => end::retry(context, args).await,
        Run::Pause(args) => end::pause(context, args).await,
        Run::Resume(args) => end::resume(context, args).await,
        Run::Repin(args) => end::repin(context, args).await,
        Run::Signal(args) => signal::signal(context, args).await,
        Run::Score(args) => score::score(context, args).await,
        Run::Finish(args) => end::finish(context, args).await,
        Run::Keep(args) => end::keep(context, args).await,
    }
}
