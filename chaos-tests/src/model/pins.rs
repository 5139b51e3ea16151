//! Which runs are open on which bundle: a recount, where the server keeps counters.

use std::collections::BTreeMap;

/// Open pins of one agent.
#[derive(Debug, Clone, Default)]
pub struct Pins {
    open: BTreeMap<String, String>,
}

impl Pins {
    pub fn open(&mut self, run_id: &str, bundle_id: &str) {
        self.open.insert(run_id.to_owned(), bundle_id.to_owned());
    }

    pub fn moved(&mut self, run_id: &str, bundle_id: &str) {
        if let Some(pinned) = self.open.get_mut(run_id) {
            bundle_id.clone_into(pinned);
        }
    }

    /// # Errors
    /// When the run is not open.
    pub fn close(&mut self, run_id: &str) -> Result<(), String> {
        match self.open.remove(run_id) {
            Some(_) => Ok(()),
            None => Err(format!("run {run_id} ended and was not open")),
        }
    }

    /// Open runs that are pinned to a bundle.
    pub fn on<'a>(&'a self, bundle_id: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.open
            .iter()
            .filter(move |(_, pinned)| *pinned == bundle_id)
            .map(|(run_id, _)| run_id.as_str())
    }

    /// The bundle of an open run.
    #[must_use]
    pub fn bundle_of(&self, run_id: &str) -> Option<&str> {
        self.open.get(run_id).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_starts_moves_and_ends() {
        let mut pins = Pins::default();
        pins.open("a", "v1");
        pins.open("b", "v1");
        pins.moved("b", "v2");
        assert_eq!(pins.on("v1").count(), 1);
        pins.close("a").expect("it is open");
        assert!(pins.close("a").is_err());
        assert_eq!(pins.on("v1").count(), 0);
        assert_eq!(pins.bundle_of("b"), Some("v2"));
    }
}
