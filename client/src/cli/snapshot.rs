//! `cluster snapshot`: backups of the whole cluster.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::human;
use super::problem::{self, Problem};
use super::table::pairs;
use super::view::View;
use crate::backup::{self, BackupError};

/// Verbs of `cluster snapshot`.
#[derive(Debug, Clone, Subcommand)]
pub enum Snapshot {
    /// Take a backup, while the cluster serves
    #[command(after_help = "Example:\n  pinrail cluster snapshot save prod-2026-11-28.backup")]
    Save(Save),
    /// Read a backup from its first byte to its last; needs no cluster
    #[command(
        visible_alias = "status",
        after_help = "Example:\n  pinrail cluster snapshot verify prod-2026-11-28.backup"
    )]
    Verify(Verify),
    /// Unpack a backup into the new data directory of a member; needs no cluster
    #[command(
        after_help = "Example, on each member of a cluster that has another name in server.toml:\n  pinrail cluster snapshot restore prod-2026-11-28.backup --data /var/lib/pinrail"
    )]
    Restore(Restore),
}

#[derive(Debug, Clone, Args)]
pub struct Save {
    /// Where to; it must not be there yet
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The member's data directory, as server.toml names it; it must be empty or absent
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) async fn run(context: &Context, verb: &Snapshot) -> Done {
    match verb {
        Snapshot::Save(args) => {
            let backup = backup::save(&context.client, &args.file).await.map_err(problem)?;
            context.show(&view(&backup, &[("saved", args.file.display().to_string())]))
        }
        Snapshot::Verify(args) => {
            let backup = backup::verify(&args.file).map_err(problem)?;
            context.show(&view(&backup, &[("whole", args.file.display().to_string())]))
        }
        Snapshot::Restore(args) => {
            let backup = backup::unpack(&args.file, &args.data).map_err(problem)?;
            let rows = [
                ("unpacked", args.data.display().to_string()),
                ("next", "the same on every other member, then start them".to_owned()),
            ];
            context.show(&view(&backup, &rows))
        }
    }
}

fn view(backup: &v1::Backup, more: &[(&str, String)]) -> View {
    let bytes: u64 = backup.files.iter().map(|file| file.size).sum();
    let mut rows = vec![
        ("cluster", backup.cluster.clone()),
        ("revision", backup.revision.to_string()),
        ("time", human::at(backup.cluster_time.as_ref())),
        ("state hash", backup.state_hash.clone()),
        ("size", format!("{bytes} bytes in {} files", backup.files.len())),
        ("version", backup.version.clone()),
    ];
    rows.extend(more.iter().cloned());
    // The nodes' own description is for nodes.
    let shown = v1::Backup { manifest: bytes::Bytes::new(), ..backup.clone() };
    View::object(&shown, &backup.revision.to_string(), pairs(&rows))
}

fn problem(error: BackupError) -> Problem {
    let message = error.to_string();
    match error {
        BackupError::Call(error) => Problem::from(error),
        BackupError::Exists(_) => Problem::new("FILE_EXISTS", problem::REFUSED, message),
        BackupError::NotNew(_) => Problem::new("DIRECTORY_NOT_EMPTY", problem::REFUSED, message),
        BackupError::Damaged { .. } => Problem::new("BACKUP_DAMAGED", problem::ERROR, message)
            .next("pinrail cluster snapshot save FILE      takes another one"),
        BackupError::Io { .. } => Problem::new("IO", problem::ERROR, message),
    }
}
