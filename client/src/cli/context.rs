//! What every verb has: the client, the settings, and the promises that hold for all of them (a request id for each
//! write, talk on stderr, answers in the format that was asked for).

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use parking_lot::Mutex;
use pinrail_proto::{id, limits, v1};
use rand::RngExt as _;

use super::flags::{ListFlags, WriteFlags};
use super::human;
use super::problem::{self, Problem};
use super::settings::{Globals, Output, Settings};
use super::view::View;
use crate::client::Client;
use crate::connection::Notice;
use crate::error::{Error, UNREACHABLE};

/// Time between two reads of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Exit code, or what went wrong.
pub(super) type Done = Result<u8, Problem>;

pub(super) struct Context {
    pub(super) client: Client,
    pub(super) settings: Settings,
    local: bool,
    /// Request id of the write that is under way.
    request: Mutex<String>,
    /// The agent that the command names, for advice.
    agent: Mutex<String>,
}

impl Context {
    pub(super) fn new(settings: Settings, globals: &Globals) -> Result<Context, Problem> {
        let told = Mutex::new(BTreeSet::new());
        let client = Client::builder(settings.config())
            .on_notice(move |notice| tell(notice, &told))
            .build()?;
        let (request, agent) = (Mutex::default(), Mutex::default());
        Ok(Context { client, settings, local: globals.local, request, agent })
    }

    /// With `--local`: from here on one member is asked, and stderr says how fresh it is.
    pub(super) async fn settle(&mut self) -> Result<(), Problem> {
        if !self.local {
            return Ok(());
        }
        let mut last = None;
        for endpoint in self.settings.config().endpoints {
            match self.client.cluster().status_of(&endpoint).await {
                Ok(status) => {
                    eprintln!("local: {}", freshness(&status, &endpoint));
                    let mut config = self.settings.config();
                    config.endpoints = vec![endpoint];
                    self.client = Client::builder(config).learn_members(false).build()?;
                    return Ok(());
                }
                Err(error) => {
                    eprintln!("{endpoint} is unreachable: {error}");
                    last = Some(error);
                }
            }
        }
        Err(last.map_or_else(|| Problem::usage("no endpoint is given"), Problem::from))
    }

    pub(super) fn output(&self) -> Output {
        self.settings.output.value
    }

    /// Ctrl-C: says what may have been done all the same.
    pub(super) fn interrupted(&self) -> u8 {
        let request_id = self.request_id();
        if !request_id.is_empty() {
            eprintln!("interrupted; the write may have been done: request {request_id}");
            eprintln!("the same command with --request-id {request_id} asks again safely");
        }
        problem::INTERRUPTED
    }

    /// Checks the name of the agent that the command is about, and remembers it.
    pub(super) fn agent(&self, name: &str) -> Result<String, Problem> {
        id::check_name("agent", name)?;
        name.clone_into(&mut self.agent.lock());
        Ok(name.to_owned())
    }

    pub(super) fn subject(&self) -> String {
        self.agent.lock().clone()
    }

    /// Request id of the write that was begun, or nothing.
    pub(super) fn request_id(&self) -> String {
        self.request.lock().clone()
    }

    /// The write is acknowledged: what follows only reads.
    pub(super) fn acknowledged(&self) {
        self.request.lock().clear();
    }

    /// What a read asks for.
    pub(super) fn read(&self) -> Option<v1::ReadOptions> {
        self.local.then(|| v1::ReadOptions {
            consistency: v1::Consistency::Local.into(),
            min_revision: 0,
        })
    }

    /// What a write carries; it always has a request id.
    pub(super) fn write(&self, flags: &WriteFlags) -> Result<Option<v1::WriteOptions>, Problem> {
        if self.local {
            return Err(Problem::usage("--local is for reads; a write needs a quorum"));
        }
        let request_id = match &flags.request_id {
            Some(request_id) => {
                id::check_token("request id", request_id)?;
                request_id.clone()
            }
            None => format!("{:032x}", rand::rng().random::<u128>()),
        };
        request_id.clone_into(&mut self.request.lock());
        if flags.dry_run {
            eprintln!("dry run: nothing is written");
        }
        Ok(Some(v1::WriteOptions {
            request_id,
            expected_revision: flags.expect_revision.unwrap_or(0),
            reason: flags.reason.clone(),
            actor: self.settings.actor.value.clone(),
            dry_run: flags.dry_run,
        }))
    }

    /// Prints an answer.
    pub(super) fn show(&self, view: &View) -> Done {
        view.print(self.output())?;
        Ok(problem::OK)
    }

    /// Reads and prints once, or with `--watch` again each second.
    pub(super) async fn watch<F, Fut>(&self, watch: bool, read: F) -> Done
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<View, Problem>>,
    {
        if !watch {
            return self.show(&read().await?);
        }
        let clear = std::io::stdout().is_terminal() && !self.output().is_structured();
        loop {
            match read().await {
                Ok(view) => {
                    if clear {
                        super::view::write(b"\x1b[H\x1b[2J")?;
                    }
                    view.print(self.output())?;
                }
                // The cluster may come back.
                Err(problem) if problem.exit == problem::UNAVAILABLE => {
                    problem.print(self.output());
                }
                Err(problem) => return Err(problem),
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    /// Asks before something that cannot be undone.
    pub(super) fn confirm(&self, flags: &WriteFlags, question: &str) -> Result<(), Problem> {
        if flags.yes || flags.dry_run {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || self.output().is_structured() {
            let message = format!("{question} Nobody can be asked here");
            return Err(Problem::new("CONFIRMATION_NEEDED", problem::USAGE, message)
                .next("the same command with --yes"));
        }
        eprint!("{question} [y/N] ");
        // Nothing is lost when the question does not show: the answer then is no.
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        match read {
            Ok(_) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) => Ok(()),
            Ok(_) | Err(_) => Err(Problem::new("NOT_CONFIRMED", 1, "nothing was done")),
        }
    }

    /// Pages of a list until the limit: items, the token of the next page, and the revision of the last page.
    pub(super) async fn pages<T, F, Fut>(
        &self,
        list: &ListFlags,
        fetch: F,
    ) -> Result<(Vec<T>, String, u64), Problem>
    where
        F: Fn(u32, String) -> Fut,
        Fut: Future<Output = Result<(Vec<T>, String, u64), Error>>,
    {
        let (mut items, mut token, mut left) = (Vec::new(), list.page_token.clone(), list.limit);
        loop {
            let (page, next, revision) = fetch(left.min(limits::PAGE), token).await?;
            left = left.saturating_sub(u32::try_from(page.len()).unwrap_or(u32::MAX));
            items.extend(page);
            // A page may be short, or empty, and still have others behind it.
            token = next;
            if left == 0 || token.is_empty() {
                if !token.is_empty() && !self.output().is_structured() {
                    eprintln!("there are more: --page-token {token}, or a larger --limit");
                }
                return Ok((items, token, revision));
            }
        }
    }
}

/// What a person who waits may want to know, each thing once.
fn tell(notice: &Notice, told: &Mutex<BTreeSet<String>>) {
    let (key, line) = match notice {
        Notice::Unreachable { endpoint, message } => {
            let message = message.trim_start_matches("UNREACHABLE: ");
            (endpoint.as_str(), format!("{endpoint} is unreachable: {message}"))
        }
        // Which member it was is said already.
        Notice::Repeating { error } if error.reason() == UNREACHABLE => return,
        Notice::Repeating { error } => (error.reason(), format!("asking again: {error}")),
    };
    if told.lock().insert(key.to_owned()) {
        eprintln!("{line}");
    }
}

fn freshness(status: &v1::GetClusterStatusResponse, endpoint: &str) -> String {
    let age = match &status.age {
        Some(age) => format!("heard of a leader {} ago", human::api_span(Some(age))),
        None => "never heard of a leader".to_owned(),
    };
    format!("{} ({endpoint}) has applied revision {}, {age}", status.node, status.revision)
}
