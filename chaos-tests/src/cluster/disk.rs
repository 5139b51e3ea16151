//! A file system of its own for a member, in a file, so that it can lose power: whatever was not synced is gone then. It can
//! also be filled, or meet an error after which the kernel writes it no more.
//!
//! ```text
//! mounted --cut_power, turn_read_only--> dead (every write fails) --boot--> mounted
//! mounted --fill--> full --boot--> mounted
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::time::{Duration, Instant, sleep};

use super::network::lives;
use super::tool::{demand, quietly, run};

/// Of all mount points here; the process that made one comes next.
const PREFIX: &str = "pinrail-disk-";
/// Room for the journal of the file system, the log, the state and a snapshot or two. The file is sparse.
const BYTES: u64 = 512 << 20;
/// What takes the room of a full one, and the smallest piece of room.
const BALLAST: &str = "ballast";
const BLOCK: u64 = 4_096;
/// How long a mount may stay busy after its last process is gone.
const BUSY: Duration = Duration::from_secs(5);

/// The kernel's own shutdown of a file system, without a flush of its log: what a power failure leaves behind. A file
/// that is written right before it and not synced must be gone afterwards; and nothing may be written any more.
const CUT_POWER: &str = r#"
import fcntl, os, sys
SHUTDOWN, NO_FLUSH = 0x8004587D, (2).to_bytes(4, sys.byteorder)
for mount in sys.argv[1:]:
    with open(mount + "/unsynced", "wb") as unsynced:
        unsynced.write(b"x" * 65536)
    fcntl.ioctl(os.open(mount, os.O_RDONLY), SHUTDOWN, NO_FLUSH)
for mount in sys.argv[1:]:
    try:
        os.mkdir(mount + "/after")
    except OSError:
        continue
    sys.exit(mount + " still takes writes")
"#;

/// Unmounted when it is dropped; the process that uses it must be dead or dying by then.
#[derive(Debug)]
pub(super) struct Disk {
    image: PathBuf,
    mount: PathBuf,
    /// Power was lost, and it was not started again.
    dead: bool,
}

impl Disk {
    /// # Errors
    /// When this machine cannot do it: says what is missing.
    pub(super) async fn make(folder: &Path, name: &str) -> Result<Self> {
        let needed = [
            ("mkfs.ext4", "e2fsprogs"),
            ("e2fsck", "e2fsprogs"),
            ("findmnt", "util-linux"),
            ("mount", "mount"),
            ("umount", "mount"),
            ("python3", "python3"),
        ];
        demand("a file system for each member", &needed)?;
        remove_stale();
        let image = folder.join(format!("{name}.img"));
        let mount = folder.join(format!("{PREFIX}{}-{name}", std::process::id()));
        File::create(&image)?.set_len(BYTES)?;
        fs::create_dir(&mount)?;
        // Nothing is left to the kernel to initialise later: it would do so again after each loss of power.
        let whole = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-m", "0", "-E", whole, "-F", text(&image)?]).await?;
        let disk = Self { image, mount, dead: false };
        disk.attach().await.context("loop devices cannot be used here")?;
        Ok(disk)
    }

    /// Where a member keeps its data.
    pub(super) fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// Takes all room that is left.
    ///
    /// # Errors
    /// When there still is some.
    pub(super) fn fill(&self) -> Result<()> {
        let ballast = File::create(self.mount.join(BALLAST))?;
        let (mut size, mut step) = (0, BYTES);
        while step >= BLOCK {
            match fallocate(&ballast, FallocateFlags::empty(), size, step) {
                Ok(()) => size += step,
                Err(Errno::NOSPC) => step /= 2,
                Err(error) => return Err(error).context("fill a file system"),
            }
        }
        ensure!(size > 0, "{} was full already", self.mount.display());
        Ok(())
    }

    /// The kernel is told of an error in it, and takes no more writes.
    ///
    /// # Errors
    /// When it still does.
    pub(super) async fn turn_read_only(&mut self) -> Result<()> {
        let mount = text(&self.mount)?;
        run("mount", &["-o", "remount,errors=remount-ro", mount]).await?;
        let device = run("findmnt", &["-n", "-o", "SOURCE", mount]).await?;
        let device = device.trim().trim_start_matches("/dev/").to_owned();
        let error = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        fs::write(&error, "1").with_context(|| format!("write to {}", error.display()))?;
        self.dead = true;
        let written = fs::create_dir(self.mount.join("after"));
        ensure!(written.is_err(), "{mount} still takes writes");
        Ok(())
    }

    async fn attach(&self) -> Result<()> {
        run("mount", &["-o", "loop", text(&self.image)?, text(&self.mount)?]).await.map(drop)
    }

    /// What a machine does when its power is back, and whoever runs it when it is full: it looks its file system over and mounts
    /// it, and there is room.
    ///
    /// # Errors
    /// When it cannot be repaired, or the power was not really lost.
    pub(super) async fn boot(&mut self) -> Result<()> {
        if !self.dead {
            return gone(fs::remove_file(self.mount.join(BALLAST)));
        }
        let deadline = Instant::now() + BUSY;
        while let Err(error) = run("umount", &[text(&self.mount)?]).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.repair().await?;
        self.attach().await?;
        self.dead = false;
        let unsynced = self.mount.join("unsynced");
        let kept = fs::metadata(&unsynced).map_or(0, |found| found.len());
        ensure!(kept == 0, "power was not lost: {} outlived it", unsynced.display());
        gone(fs::remove_file(&unsynced))
    }

    /// Takes the journal in. The program ends with 1 when it had to correct something, which is what it is for.
    async fn repair(&self) -> Result<()> {
        let output = tokio::process::Command::new("e2fsck")
            .args(["-p", text(&self.image)?])
            .stdin(Stdio::null())
            .output()
            .await
            .context("start e2fsck")?;
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "{} cannot be repaired ({}): {}",
            self.image.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout).trim()
        );
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its process may need a moment to end: the kernel lets go of it then.
        if let Ok(mount) = text(&self.mount) {
            quietly("umount", &["--lazy", mount]);
        }
    }
}

/// What need not have been there.
fn gone(removed: std::io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Power is lost on all of them, one right after the other.
///
/// # Errors
/// When one still takes writes.
pub(super) async fn cut_power(disks: &mut [&mut Disk]) -> Result<()> {
    let mut args = vec!["-c", CUT_POWER];
    for disk in disks.iter() {
        args.push(text(&disk.mount)?);
    }
    run("python3", &args).await.context("cut the power")?;
    for disk in disks {
        disk.dead = true;
    }
    Ok(())
}

/// Unmounts what harnesses that are gone left behind.
fn remove_stale() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if maker(mount).is_some_and(|pid| !lives(pid)) {
            quietly("umount", &["--lazy", mount]);
            eprintln!("unmounted {mount}, left behind by a run that is gone");
        }
    }
}

/// The process that made a mount point, when it is one of these.
fn maker(mount: &str) -> Option<u32> {
    let name = Path::new(mount).file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mount_points_of_this_harness_have_a_maker() {
        assert_eq!(maker("/tmp/pinrail-power-loss-x/pinrail-disk-812-pinrail-0"), Some(812));
        assert_eq!(maker("/tmp/pinrail-disk-/data"), None);
        assert_eq!(maker("/"), None);
    }
}
