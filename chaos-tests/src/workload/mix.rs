//! What clients do how often.

use std::time::Duration;

/// Weights of the operations of a client, and its pace.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub start: u32,
    /// The same start once more, long after it was answered.
    pub again: u32,
    pub finish: u32,
    pub cancel: u32,
    pub look_up: u32,
    pub resolve: u32,
    pub put: u32,
    pub delete: u32,
    pub get: u32,
    pub drain: u32,
    /// Longest pause between two operations.
    pub pause: Duration,
    /// Of a hundred runs so many never end by themselves.
    pub stuck_percent: u32,
    /// Of a hundred runs so many have steps that outlast a lease.
    pub long_percent: u32,
    /// Longest sleep of a step of the others.
    pub step_ms: u64,
}

impl Mix {
    /// A bit of everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            start: 25,
            again: 4,
            finish: 0,
            cancel: 2,
            look_up: 18,
            resolve: 6,
            put: 18,
            delete: 2,
            get: 22,
            drain: 7,
            pause: Duration::from_millis(60),
            stuck_percent: 4,
            long_percent: 10,
            step_ms: 300,
        }
    }

    /// The same for an agent whose runs execute elsewhere.
    #[must_use]
    pub fn external() -> Self {
        Self { finish: 18, stuck_percent: 0, ..Self::everything() }
    }

    /// Writes only, as fast as answers come: to measure how long none succeeds.
    #[must_use]
    pub fn writes() -> Self {
        Self {
            start: 20,
            again: 0,
            finish: 0,
            cancel: 0,
            look_up: 0,
            resolve: 0,
            put: 80,
            delete: 0,
            get: 0,
            drain: 0,
            pause: Duration::from_millis(10),
            stuck_percent: 0,
            long_percent: 0,
            step_ms: 0,
        }
    }
}
