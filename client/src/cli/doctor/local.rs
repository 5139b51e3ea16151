//! This machine: the disk and the rights of the member's data directory, and what its server may open.
//!
//! Of server.toml it reads one key, for the rest is the server's business.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use super::super::human;
use super::{Finding, fail, ok, warn};

/// Parts of a hundred of the disk that should be free, and that must be.
const FREE_WARN: u64 = 15;
const FREE_FAIL: u64 = 3;
/// Files that a server should be allowed to open: tables of the state, connections.
const FILES: u64 = 4_096;

#[derive(Debug, Deserialize)]
struct ServerFile {
    data: PathBuf,
}

pub(super) fn look(file: &Path) -> Vec<Finding> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string());
    let parsed = text.and_then(|text| {
        toml::from_str::<ServerFile>(&text).map_err(|error| error.message().to_owned())
    });
    let data = match parsed {
        Ok(parsed) => parsed.data,
        Err(error) => {
            let next = format!("pinrail server --check -f {}", file.display());
            return vec![fail("file", format!("{}: {error}", file.display()), next)];
        }
    };
    if !data.is_dir() {
        let next = "a start makes it; or is this the wrong file?";
        return vec![fail("data", format!("{} is not there", data.display()), next)];
    }
    let mut findings = vec![rights(&data), disk(&data), files(&data)];
    findings.extend(given_up(&data));
    findings.extend(snapshot_age(&data));
    findings
}

fn rights(data: &Path) -> Finding {
    let shown = data.display();
    match fs::metadata(data) {
        Ok(it) if it.permissions().mode() & 0o022 != 0 => warn(
            "data",
            format!("{shown} can be written by others"),
            format!("chmod go-rwx {shown}"),
        ),
        Ok(it) if it.permissions().mode() & 0o005 != 0 => {
            let found =
                format!("{shown} can be read by others: every input and every memory is in it");
            warn("data", found, format!("chmod go-rwx {shown}"))
        }
        Ok(it) => ok("data", format!("{shown} belongs to uid {} alone", it.uid())),
        Err(error) => fail("data", format!("{shown}: {error}"), "run doctor as the server's user"),
    }
}

fn disk(data: &Path) -> Finding {
    let next = "docs/RECOVERY.md, disk full";
    match rustix::fs::statvfs(data) {
        Ok(it) => {
            let free = it.f_bavail.saturating_mul(100).checked_div(it.f_blocks).unwrap_or(0);
            let gib = it.f_bavail.saturating_mul(it.f_frsize) >> 30;
            let found = format!("{free} % free, {gib} GiB");
            if free < FREE_FAIL {
                fail("disk", found, next)
            } else if free < FREE_WARN {
                warn("disk", found, next)
            } else {
                ok("disk", found)
            }
        }
        Err(error) => fail("disk", error.to_string(), next),
    }
}

/// Of the server that holds the directory's lock.
fn files(data: &Path) -> Finding {
    let Some(pid) = holder(data) else {
        return warn(
            "server",
            "none runs on this data directory",
            "pinrail server -f, or systemctl start pinrail",
        );
    };
    let limit =
        fs::read_to_string(format!("/proc/{pid}/limits")).ok().as_deref().and_then(soft_limit);
    let open = fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    match (limit, open) {
        (Some(limit), _) if limit < FILES => {
            let found = format!("process {pid} may open {limit} files only");
            warn("files", found, format!("LimitNOFILE={FILES} or more in its unit"))
        }
        (Some(limit), Ok(open)) => ok("files", format!("process {pid} has {open} of {limit} open")),
        (Some(limit), Err(_)) => ok("files", format!("process {pid} may open {limit}")),
        (None, _) => ok("files", format!("the limit of process {pid} cannot be seen")),
    }
}

/// The process that holds the lock of a data directory.
fn holder(data: &Path) -> Option<u32> {
    let inode = fs::metadata(data.join("LOCK")).ok()?.ino();
    holder_of(&fs::read_to_string("/proc/locks").ok()?, inode)
}

/// A line is `1: FLOCK  ADVISORY  WRITE 4242 fd:01:131 0 EOF`.
fn holder_of(locks: &str, inode: u64) -> Option<u32> {
    let pid = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "FLOCK")?;
        let of = words.get(at + 4)?.rsplit(':').next()?;
        if of.parse() == Ok(inode) { words.get(at + 3)?.parse().ok() } else { None }
    };
    locks.lines().find_map(pid)
}

/// A line is `Max open files   1024   524288   files`.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    match line.split_whitespace().nth(3)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn given_up(data: &Path) -> Option<Finding> {
    let why = fs::read_to_string(data.join("given-up")).ok()?;
    let next = "docs/RECOVERY.md, a lost majority: it begins anew with an empty directory";
    Some(fail("member", format!("this member was given up: {}", why.trim()), next))
}

fn snapshot_age(data: &Path) -> Option<Finding> {
    let entries = fs::read_dir(data.join("snapshots")).ok()?;
    let sealed =
        entries.flatten().filter(|it| it.file_name().to_string_lossy().starts_with("snapshot-"));
    let made_ms = sealed.filter_map(|it| {
        let at = it.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(at.as_millis()).ok()
    });
    let age = made_ms.max().map(|at| Duration::from_millis(human::now_ms().saturating_sub(at)));
    Some(match age {
        Some(age) => ok("snapshot", format!("the newest here is {} old", human::span(age))),
        None => ok("snapshot", "none was taken here yet: the log is all there"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_its_inode() {
        let locks = "1: POSIX  ADVISORY  READ 7 fd:01:130 0 EOF\n2: FLOCK  ADVISORY  WRITE 4242 fd:01:131 0 EOF\n";
        assert_eq!(holder_of(locks, 131), Some(4242));
        assert_eq!(holder_of(locks, 130), None);
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1_024));
    }

    #[test]
    fn a_directory_that_others_read_and_one_that_is_not_there_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, data) = (folder.path().join("server.toml"), folder.path().join("data"));
        fs::write(&file, format!("cluster = \"c\"\ndata = \"{}\"\n", data.display()))
            .expect("written");
        let found = look(&file);
        assert!(
            matches!(&found[..], [it] if it.state == State::Fail && it.check == "data"),
            "{found:?}"
        );
        fs::create_dir(&data).expect("made");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("set");
        let found = look(&file);
        assert!(found.iter().any(|it| it.check == "data" && it.state == State::Warn), "{found:?}");
        assert!(
            found.iter().any(|it| it.check == "server" && it.state == State::Warn),
            "{found:?}"
        );
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("set");
        let found = look(&file);
        assert!(found.iter().any(|it| it.check == "data" && it.state == State::Ok), "{found:?}");
    }
}
