//! Concurrent clients that use a cluster as its users do, at any node, and write down every attempt.
//!
//! An operation of unknown fate is asked again with the same ids until it is settled or its patience ends. Every
//! choice is drawn from the client's seed.

mod admin;
pub mod client;
mod mix;
mod operate;
mod watcher;

pub use admin::{AdminStep, administrate};
pub use client::Client;
pub use mix::Mix;
pub use operate::{Operator, Patience};
pub use watcher::Watcher;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use rand::rngs::StdRng;

/// Runs that clients remember, to look up, finish and cancel later.
const REMEMBERED: usize = 512;

/// What clients of one agent know together.
#[derive(Debug, Clone, Default)]
pub struct Known {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    runs: VecDeque<String>,
    /// Bundles that were live at some time, newest last.
    bundles: Vec<String>,
    newest_revision: u64,
}

impl Known {
    pub fn add_run(&self, run_id: &str) {
        let mut inner = self.lock();
        inner.runs.push_back(run_id.to_owned());
        if inner.runs.len() > REMEMBERED {
            inner.runs.pop_front();
        }
    }

    pub fn add_bundle(&self, bundle_id: &str) {
        self.lock().bundles.push(bundle_id.to_owned());
    }

    pub fn saw_revision(&self, revision: u64) {
        let mut inner = self.lock();
        inner.newest_revision = inner.newest_revision.max(revision);
    }

    #[must_use]
    pub fn newest_revision(&self) -> u64 {
        self.lock().newest_revision
    }

    #[must_use]
    pub fn any_run(&self, rng: &mut StdRng) -> Option<String> {
        let inner = self.lock();
        if inner.runs.is_empty() {
            return None;
        }
        inner.runs.get(rng.random_range(0..inner.runs.len())).cloned()
    }

    #[must_use]
    pub fn any_bundle(&self, rng: &mut StdRng) -> Option<String> {
        let inner = self.lock();
        if inner.bundles.is_empty() {
            return None;
        }
        inner.bundles.get(rng.random_range(0..inner.bundles.len())).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
