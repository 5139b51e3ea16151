//! Where the binaries under test are. The only place that reads the environment.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The programs that chaos starts.
#[derive(Debug, Clone)]
pub struct Binaries {
    pub pinrail: PathBuf,
    pub worker: PathBuf,
    pub research: PathBuf,
    /// The workers of `demo-release`.
    pub agent: PathBuf,
}

impl Binaries {
    /// From `PINRAIL_BIN`, `PINRAIL_CHAOS_WORKER`, `PINRAIL_CHAOS_AGENT` and `PINRAIL_RESEARCH`, or else beside this program in cargo's
    /// target folder.
    ///
    /// # Errors
    /// When the server or the chaos worker was not built.
    pub fn locate() -> Result<Self> {
        let profile = profile_folder()?;
        let binaries = Self {
            pinrail: chosen("PINRAIL_BIN").unwrap_or_else(|| profile.join("pinrail")),
            worker: chosen("PINRAIL_CHAOS_WORKER").unwrap_or_else(|| profile.join("chaos-worker")),
            research: chosen("PINRAIL_RESEARCH")
                .unwrap_or_else(|| profile.join("examples/research")),
            agent: chosen("PINRAIL_CHAOS_AGENT").unwrap_or_else(|| profile.join("chaos-agent")),
        };
        binaries.demand(&binaries.pinrail, "cargo build -p pinrail-node --bins")?;
        binaries.demand(&binaries.worker, "cargo build -p pinrail-chaos-tests --bins")?;
        Ok(binaries)
    }

    /// The research example, which only the demo needs.
    ///
    /// # Errors
    /// When it was not built.
    pub fn research(&self) -> Result<&Path> {
        self.demand(&self.research, "cargo build -p pinrail-client --example research")?;
        Ok(&self.research)
    }

    fn demand(&self, path: &Path, how: &str) -> Result<()> {
        if !path.is_file() {
            bail!("{} is not there; `{how}` (with the same profile) builds it", path.display());
        }
        Ok(())
    }
}

/// Servers of other systems, to measure beside ours.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// The program.
    pub etcd: Option<PathBuf>,
    /// The folder of `postgres` and `initdb`.
    pub postgres: Option<PathBuf>,
    pub restate: Option<Restate>,
}

/// The programs of Restate.
#[derive(Debug, Clone)]
pub struct Restate {
    pub server: PathBuf,
    /// Ours, written with its SDK: what it runs the steps of.
    pub service: PathBuf,
}

impl Peers {
    /// From `PINRAIL_ETCD`, `PINRAIL_POSTGRES`, `PINRAIL_RESTATE` and `PINRAIL_RESTATE_SERVICE`; what is not there is none.
    #[must_use]
    pub fn locate() -> Self {
        let postgres = chosen("PINRAIL_POSTGRES");
        let restate = chosen_file("PINRAIL_RESTATE").zip(chosen_file("PINRAIL_RESTATE_SERVICE"));
        Self {
            etcd: chosen_file("PINRAIL_ETCD"),
            postgres: postgres.filter(|folder| folder.join("postgres").is_file()),
            restate: restate.map(|(server, service)| Restate { server, service }),
        }
    }
}

fn chosen(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn chosen_file(variable: &str) -> Option<PathBuf> {
    chosen(variable).filter(|path| path.is_file())
}

/// `target/debug` or `target/release`: tests run from its `deps` folder.
fn profile_folder() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("this program has no path")?;
    let folder = exe.parent().context("this program is in no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}
