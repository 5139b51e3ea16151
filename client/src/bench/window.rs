//! The part of a load that counts.

use tokio::time::Instant;

use super::load::Load;

/// When a load begins, and which of its operations count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Of the warm-up.
    pub(super) begins: Instant,
    /// Operations that begin from here on count.
    pub(super) opens: Instant,
    /// No operation begins from here on.
    pub(super) closes: Instant,
}

impl Window {
    /// The window of a load that begins now.
    pub(super) fn starting_now(load: &Load) -> Window {
        let begins = Instant::now();
        let opens = begins + load.warm_up;
        Window { begins, opens, closes: opens + load.duration }
    }

    /// Whether an operation that began then counts.
    pub(super) fn counts(&self, since: Instant) -> bool {
        self.opens <= since && since < self.closes
    }
}
