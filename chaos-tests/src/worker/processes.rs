//! Worker processes of a scenario: a few for each bundle, hurt and replaced like servers.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::api::setup::code_of;
use crate::cluster::process::{Launch, Process};

/// All worker processes.
#[derive(Debug)]
pub struct Workers {
    program: PathBuf,
    folder: PathBuf,
    endpoints: String,
    running: Vec<Running>,
    started: usize,
}

#[derive(Debug)]
struct Running {
    agent: String,
    bundle_id: String,
    process: Process,
    frozen: bool,
}

impl Workers {
    /// # Errors
    /// When the folder for journals cannot be made.
    pub fn new(program: &Path, folder: &Path, endpoints: &str) -> Result<Self> {
        let folder = folder.join("workers");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            program: program.to_owned(),
            folder,
            endpoints: endpoints.to_owned(),
            running: Vec::new(),
            started: 0,
        })
    }

    /// Where the journals are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The agent that they work for.
    #[must_use]
    pub fn agent(&self) -> &str {
        self.running.first().map_or("", |running| &running.agent)
    }

    /// A worker of this bundle.
    #[must_use]
    pub fn of_bundle(&self, bundle_id: &str) -> Option<usize> {
        self.running.iter().position(|running| running.bundle_id == bundle_id)
    }

    /// Starts one more worker of a bundle.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, agent: &str, bundle_id: &str) -> Result<()> {
        self.started += 1;
        let worker_id = format!("{agent}-{bundle_id}-{}", self.started);
        let journal = self.folder.join(format!("{worker_id}.jsonl"));
        let args = [
            ("--endpoints", self.endpoints.clone()),
            ("--agent", agent.to_owned()),
            ("--bundle", bundle_id.to_owned()),
            ("--code", code_of(bundle_id)),
            ("--worker-id", worker_id.clone()),
            ("--journal", journal.display().to_string()),
        ];
        let launch = Launch {
            what: worker_id.clone(),
            program: self.program.clone(),
            args: args.into_iter().flat_map(|(name, value)| [name.into(), value.into()]).collect(),
            env: Vec::new(),
            log: self.folder.join(format!("{worker_id}.log")),
            namespace: None,
            apart: false,
        };
        let process = Process::start(&launch)?;
        let (agent, bundle_id) = (agent.to_owned(), bundle_id.to_owned());
        self.running.push(Running { agent, bundle_id, process, frozen: false });
        Ok(())
    }

    /// Kills one and starts another in its place.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn replace(&mut self, index: usize) -> Result<()> {
        let index = index % self.running.len().max(1);
        let mut old = self.running.swap_remove(index);
        old.process.kill().await?;
        self.start(&old.agent, &old.bundle_id)
    }

    /// # Errors
    /// When it is not seen stopped.
    pub async fn freeze(&mut self, index: usize) -> Result<()> {
        let index = index % self.running.len().max(1);
        let running = &mut self.running[index];
        running.frozen = true;
        running.process.freeze().await
    }

    /// # Errors
    /// When one is gone.
    pub fn thaw_all(&mut self) -> Result<()> {
        for running in self.running.iter_mut().filter(|running| running.frozen) {
            running.frozen = false;
            running.process.thaw()?;
        }
        Ok(())
    }

    /// Kills all of them and waits until they are gone; gives the folder of their journals.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn stop(mut self) -> Result<PathBuf> {
        for running in &mut self.running {
            running.process.kill().await?;
        }
        Ok(self.folder)
    }

    /// # Errors
    /// When one ended although nobody asked it to.
    pub fn must_run(&mut self) -> Result<()> {
        self.running.iter_mut().try_for_each(|running| running.process.must_run())
    }
}
