//! A control group in which a member gets only a part of one processor.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::time::{Duration, Instant, sleep};

/// Of 100 ms, the time in which the process may run: the first that it does not get by with.
const QUOTAS_US: [u32; 4] = [20_000, 10_000, 5_000, 2_500];
const PERIOD_US: u32 = 100_000;
/// A process that wants more than its part has used it up by then.
const MET: Duration = Duration::from_millis(1_500);

/// The two hierarchies of control groups that a kernel may show.
#[derive(Debug, Clone, Copy)]
enum Hierarchy {
    V1,
    V2,
}

impl Hierarchy {
    fn find() -> Result<Self> {
        if Self::V1.root().is_dir() {
            return Ok(Self::V1);
        }
        let controllers =
            fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        if controllers.split_whitespace().any(|one| one == "cpu") {
            return Ok(Self::V2);
        }
        bail!("there is no control group for processors under /sys/fs/cgroup")
    }

    fn root(self) -> &'static Path {
        match self {
            Self::V1 => Path::new("/sys/fs/cgroup/cpu"),
            Self::V2 => Path::new("/sys/fs/cgroup"),
        }
    }

    fn limit(self, group: &Path, quota_us: u32) -> Result<()> {
        match self {
            Self::V1 => {
                write(&group.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                write(&group.join("cpu.cfs_quota_us"), &quota_us.to_string())
            }
            Self::V2 => {
                write(&self.root().join("cgroup.subtree_control"), "+cpu")?;
                write(&group.join("cpu.max"), &format!("{quota_us} {PERIOD_US}"))
            }
        }
    }
}

/// The group is removed, and its process goes back, when it is dropped.
#[derive(Debug)]
pub(super) struct Starved {
    hierarchy: Hierarchy,
    group: PathBuf,
    pid: u32,
}

impl Starved {
    /// Leaves a process a fifth of one processor, or less where it does not need that, and waits until it has met the limit.
    ///
    /// # Errors
    /// When there are no control groups here, or the process does not meet any limit.
    pub(super) async fn make(pid: u32) -> Result<Self> {
        let hierarchy = Hierarchy::find()?;
        let group = hierarchy.root().join(format!("pinrail-chaos-{}-{pid}", std::process::id()));
        fs::create_dir(&group).context("control groups cannot be made here")?;
        let starved = Self { hierarchy, group, pid };
        for quota_us in QUOTAS_US {
            hierarchy.limit(&starved.group, quota_us)?;
            write(&starved.group.join("cgroup.procs"), &pid.to_string())?;
            let deadline = Instant::now() + MET;
            while Instant::now() < deadline {
                if starved.throttled() > 0 {
                    return Ok(starved);
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        bail!("process {pid} did not meet the limit of its control group");
    }

    /// How often the process had to wait for the next period.
    fn throttled(&self) -> u64 {
        let stat = fs::read_to_string(self.group.join("cpu.stat")).unwrap_or_default();
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.and_then(|count| count.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // Its process may have ended: then nothing is in the group.
        let _ = write(&self.hierarchy.root().join("cgroup.procs"), &self.pid.to_string());
        let _ = fs::remove_dir(&self.group);
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {text} to {}", path.display()))
}
