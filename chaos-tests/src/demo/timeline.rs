//! Lines with the time since the start.

use tokio::time::Instant;

/// When the demonstration began.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    begin: Instant,
}

impl Timeline {
    pub(crate) fn begin() -> Self {
        Self { begin: Instant::now() }
    }

    /// Says what just happened.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        let at = self.begin.elapsed();
        println!("{:>4}.{:03} s  {}", at.as_secs(), at.subsec_millis(), text.as_ref());
    }

    /// Says something that belongs to the line before.
    pub(crate) fn add(&self, text: impl AsRef<str>) {
        println!("            {}", text.as_ref());
    }
}
