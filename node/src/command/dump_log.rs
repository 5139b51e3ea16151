//! `pinrail debug dump-log`: what a stopped member's log holds.

use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use pinrail_client::cli::{self, Offline, Refusal};
use pinrail_node::config::ServerConfig;
use pinrail_node::log_dump::{self, DumpError};
use pinrail_node::storage::DataDirError;

/// Look into a stopped member's files
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Debug {
    DumpLog(DumpLog),
}

/// Print the entries of a stopped member's log, one JSON object a line
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail debug dump-log -f /etc/pinrail/server.toml --from 118 | jq .commands\n  pinrail debug dump-log --data /var/lib/pinrail\n\nNothing is written there. Whether a member's last entries were committed its log alone does not say."
)]
pub(crate) struct DumpLog {
    #[command(flatten)]
    source: Source,
    /// The first index to print
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// The last index to print
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
}

/// Where the entries are.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// server.toml of the member
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The member's data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What a node under test wrote with `pinrail server --log-archive`
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
}

/// Prints entries to stdout.
pub(crate) fn run(args: &DumpLog, globals: &cli::Globals) -> ExitCode {
    let offline = match Offline::new(globals) {
        Ok(offline) => offline,
        Err(exit) => return exit,
    };
    if args.from > args.to {
        let message = format!("--from {} is behind --to {}", args.from, args.to);
        return offline.refuse("INVALID_ARGUMENT", Refusal::Usage, &message, &[]);
    }
    let range = args.from..=args.to;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut member = |data: &Path| log_dump::member(data, &range, &mut out);
    let Source { file, data, archive } = &args.source;
    let dumped = match (file, data, archive) {
        (Some(file), _, _) => match ServerConfig::load(file) {
            Ok(config) => member(&config.data),
            Err(error) => {
                return offline.refuse("INVALID_CONFIG", Refusal::Usage, &error.to_string(), &[]);
            }
        },
        (None, Some(data), _) => member(data),
        (None, None, Some(archive)) => log_dump::archive(archive, &range, &mut out),
        (None, None, None) => Ok(()),
    };
    match dumped {
        Ok(()) => ExitCode::SUCCESS,
        // `head` has seen enough.
        Err(DumpError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => refuse(&offline, &error),
    }
}

fn refuse(offline: &Offline, error: &DumpError) -> ExitCode {
    let (reason, refusal, next): (_, _, &[&str]) = match error {
        DumpError::Directory(DataDirError::InUse(_)) => {
            ("DIRECTORY_IN_USE", Refusal::Unsafe, &["stop this member's server first"])
        }
        DumpError::NoMember(_) | DumpError::NoArchive(_) => {
            ("NOTHING_THERE", Refusal::Failed, &["--data as in the member's server.toml"])
        }
        DumpError::Damaged { .. } | DumpError::Directory(DataDirError::Damaged { .. }) => {
            ("DATA_DAMAGED", Refusal::Failed, &["the same entries are in the other members' logs"])
        }
        DumpError::Directory(_) | DumpError::Unreadable { .. } | DumpError::Output(_) => {
            ("IO", Refusal::Failed, &[])
        }
    };
    offline.refuse(reason, refusal, &error.to_string(), next)
}
