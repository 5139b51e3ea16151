//! PostgreSQL: one node on fresh data, with the settings that it has by default, which sync every commit. It replicates nothing.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures::future::{BoxFuture, try_join_all};
use pinrail_client::bench::{Figures, Load, Operation, VALUE_BYTES, measure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::{Client, Error, NoTls, Statement};
use tokio_util::sync::CancellationToken;

use super::folder;
use crate::cluster::free_ports;
use crate::cluster::process::{Launch, Process};

const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
const CONNECTIONS: usize = 1_100;
/// The account that it runs as when this is root, which it refuses: its own, or one that may do nothing.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];
/// Questions for a job that others have taken meanwhile.
const CLAIMS: usize = 1_000;

const TABLES: &str = "
    CREATE TABLE runs (id text PRIMARY KEY, input text NOT NULL);
    CREATE TABLE jobs (id bigserial PRIMARY KEY, input text NOT NULL, state smallint NOT NULL DEFAULT 0, output text);
    CREATE INDEX jobs_waiting ON jobs (id) WHERE state = 0;";
const INSERT: &str = "INSERT INTO runs (id, input) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const ENQUEUE: &str = "INSERT INTO jobs (input) VALUES ($1)";
const CLAIM: &str = "UPDATE jobs SET state = 1 WHERE id = (SELECT id FROM jobs WHERE state = 0 ORDER BY id \
                     FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id, input";
const COMPLETE: &str = "UPDATE jobs SET state = 2, output = $2 WHERE id = $1";

/// What is measured of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Insert a row if absent.
    Insert,
    /// Enqueue a job, claim one, complete that: three commits.
    Job,
}

/// One server.
pub(super) struct Postgres {
    process: Process,
    port: u16,
    pub(super) version: String,
    /// Goes after the process.
    _folder: TempDir,
}

impl Postgres {
    /// `programs` is the folder of `postgres` and `initdb`.
    pub(super) async fn start(programs: &Path, out: Option<&Path>) -> Result<Self> {
        let folder = folder::fresh(out)?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let account = Account::choose()?;
        if let Some(account) = &account {
            chown(&data, Some(account.user), Some(account.group))?;
        }
        let initdb = [
            "-D".to_owned(),
            data.display().to_string(),
            "-U".to_owned(),
            "bench".to_owned(),
            "-A".to_owned(),
            "trust".to_owned(),
        ];
        let (program, args) = as_account(&programs.join("initdb"), &initdb, account.as_ref());
        let made = Command::new(program).args(args).current_dir(&data).output().await?;
        if !made.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        let port = free_ports(1)?[0];
        let settings = [
            "-D".to_owned(),
            data.display().to_string(),
            "-p".to_owned(),
            port.to_string(),
            "-c".to_owned(),
            "listen_addresses=127.0.0.1".to_owned(),
            "-c".to_owned(),
            "unix_socket_directories=".to_owned(),
            "-c".to_owned(),
            format!("max_connections={CONNECTIONS}"),
        ];
        let (program, args) = as_account(&programs.join("postgres"), &settings, account.as_ref());
        let process = Process::start(&Launch {
            what: "postgres".to_owned(),
            program,
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            log: folder.path().join("postgres.log"),
            namespace: None,
            apart: false,
        })?;
        let mut server = Self { process, port, version: String::new(), _folder: folder };
        let client = server.connect_soon().await?;
        client.batch_execute(TABLES).await?;
        server.version = client.query_one("SHOW server_version", &[]).await?.get(0);
        Ok(server)
    }

    async fn connect_soon(&mut self) -> Result<Client> {
        let deadline = Instant::now() + START;
        loop {
            match self.connect().await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("PostgreSQL does not answer");
                }
                Err(_) => self.process.must_run()?,
            }
            sleep(LOOK).await;
        }
    }

    async fn connect(&self) -> Result<Client, Error> {
        let way = format!("host=127.0.0.1 port={} user=bench dbname=postgres", self.port);
        let (client, connection) = tokio_postgres::connect(&way, NoTls).await?;
        // It ends with its client, which is told what went wrong.
        tokio::spawn(connection);
        Ok(client)
    }

    /// One measurement; each client has a connection of its own, as PostgreSQL wants it.
    pub(super) async fn measure(&mut self, call: Call, load: Load) -> Result<Option<Figures>> {
        let sessions = (0..load.clients).map(|_| async {
            let client = self.connect().await?;
            Session::prepare(client, call).await
        });
        let sessions = try_join_all(sessions).await?;
        let input = "x".repeat(VALUE_BYTES);
        let pids = self.pids(&sessions)?;
        // Held until all is read: the process of a connection ends with it.
        let calls: Arc<dyn Operation> = Arc::new(Calls { call, sessions, input });
        let figures = measure(load, Arc::clone(&calls), &pids, &CancellationToken::new()).await?;
        drop(calls);
        self.process.must_run()?;
        Ok(figures)
    }

    /// The server, the processes that it keeps, and that of each connection.
    fn pids(&self, sessions: &[Session]) -> Result<Vec<u32>> {
        let pid = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        let kept = std::iter::once(pid).chain(children.filter(|pid| stays(*pid)));
        Ok(kept.chain(sessions.iter().map(|session| session.pid)).collect())
    }
}

/// Processes that PostgreSQL keeps as long as it runs. Others end by themselves in the middle of a measurement, as workers of autovacuum
/// and connections that were closed a moment ago: what they use is left out, to PostgreSQL's favour.
const KEPT: [&str; 5] = [
    "checkpointer",
    "background writer",
    "walwriter",
    "autovacuum launcher",
    "logical replication launcher",
];

fn stays(pid: u32) -> bool {
    let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = title.strip_prefix("postgres: ").unwrap_or_default();
    KEPT.iter().any(|kept| name.starts_with(kept))
}

struct Session {
    client: Client,
    /// Of the process that serves it.
    pid: u32,
    /// Of the call, in their order.
    statements: Vec<Statement>,
}

impl Session {
    async fn prepare(client: Client, call: Call) -> Result<Self, Error> {
        let texts: &[&str] = match call {
            Call::Insert => &[INSERT],
            Call::Job => &[ENQUEUE, CLAIM, COMPLETE],
        };
        let mut statements = Vec::new();
        for text in texts {
            statements.push(client.prepare(text).await?);
        }
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        Ok(Self { client, pid: pid.cast_unsigned(), statements })
    }
}

struct Calls {
    call: Call,
    sessions: Vec<Session>,
    input: String,
}

impl Calls {
    async fn insert(&self, session: &Session, number: u64) -> Result<(), Error> {
        let id = format!("bench-{number:012}");
        session.client.execute(&session.statements[0], &[&id, &self.input]).await.map(drop)
    }

    /// Whether there was a job to claim.
    async fn job(&self, session: &Session) -> Result<bool, Error> {
        let Session { client, statements, .. } = session;
        client.execute(&statements[0], &[&self.input]).await?;
        for _ in 0..CLAIMS {
            // Every job that it saw may have been taken meanwhile; its own, or another's in its place, is still there.
            let Some(job) = client.query_opt(&statements[1], &[]).await? else { continue };
            let (id, input): (i64, String) = (job.get(0), job.get(1));
            client.execute(&statements[2], &[&id, &input]).await?;
            return Ok(true);
        }
        Ok(false)
    }
}

impl Operation for Calls {
    fn perform(&self, client: usize, number: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let session = &self.sessions[client % self.sessions.len()];
            let done = match self.call {
                Call::Insert => self.insert(session, number).await.map(|()| true),
                Call::Job => self.job(session).await,
            };
            match done {
                Ok(true) => Ok(()),
                Ok(false) => Err("NO_JOB".to_owned()),
                Err(error) => {
                    let code = error.code().map(|code| code.code().to_owned());
                    Err(code.unwrap_or_else(|| "CONNECTION".to_owned()))
                }
            }
        })
    }
}

/// An account of this machine.
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// None when this is not root: it runs as this user.
    fn choose() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let text = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let found = ACCOUNTS.iter().find_map(|name| Self::find(&text, name));
        found.map(Some).context("PostgreSQL refuses root, and there is no account for it")
    }

    fn find(text: &str, name: &str) -> Option<Self> {
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let line = lines.find(|fields| fields.first() == Some(&name))?;
        Some(Self { user: line.get(2)?.parse().ok()?, group: line.get(3)?.parse().ok()? })
    }
}

/// A program as it is started for an account: `setpriv` ends in the program itself, with the same process id.
fn as_account(
    program: &Path,
    args: &[String],
    account: Option<&Account>,
) -> (PathBuf, Vec<String>) {
    let Some(Account { user, group }) = account else {
        return (program.to_owned(), args.to_vec());
    };
    let mut all = vec![
        format!("--reuid={user}"),
        format!("--regid={group}"),
        "--clear-groups".to_owned(),
        program.display().to_string(),
    ];
    all.extend_from_slice(args);
    (PathBuf::from("setpriv"), all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_name() {
        let text = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533:n:/:/bin/false\n";
        let found = Account::find(text, "nobody").map(|it| (it.user, it.group));
        assert_eq!(found, Some((65534, 65533)));
        assert!(Account::find(text, "postgres").is_none());
    }
}
