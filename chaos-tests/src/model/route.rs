//! Which bundle is live, and what a rollback returns to.

use std::collections::BTreeMap;

/// A bundle with traffic, from one route change to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub revision: u64,
    pub epoch: u64,
    pub bundle_id: String,
    /// The model's own number of the memory layer.
    pub layer: usize,
}

/// The route of one agent.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// What is live, on top of what a rollback returns to.
    stack: Vec<Placement>,
    /// Every placement there was.
    by_epoch: BTreeMap<u64, Placement>,
    /// The layer that a bundle's name stands for.
    layer_of: BTreeMap<String, usize>,
}

impl Route {
    #[must_use]
    pub fn live(&self) -> Option<&Placement> {
        self.stack.last()
    }

    #[must_use]
    pub fn at_epoch(&self, epoch: u64) -> Option<&Placement> {
        self.by_epoch.get(&epoch)
    }

    #[must_use]
    pub fn layer_of(&self, bundle_id: &str) -> Option<usize> {
        if bundle_id.is_empty() {
            return self.live().map(|live| live.layer);
        }
        self.layer_of.get(bundle_id).copied()
    }

    /// # Errors
    /// When the epoch does not grow.
    pub fn switch(
        &mut self,
        revision: u64,
        epoch: u64,
        to: &str,
        layer: usize,
    ) -> Result<(), String> {
        self.judge_epoch(epoch)?;
        if self.live().is_some_and(|live| live.bundle_id == to) {
            return Err(format!("a switch to {to}, which was live already, moved the route"));
        }
        let placement = Placement { revision, epoch, bundle_id: to.to_owned(), layer };
        self.place(placement.clone());
        self.stack.push(placement);
        Ok(())
    }

    /// # Errors
    /// When the epoch does not grow, when it leaves another bundle than the live one or returns to another than
    /// the one before it.
    pub fn roll_back(
        &mut self,
        revision: u64,
        epoch: u64,
        from: &str,
        to: &str,
    ) -> Result<(), String> {
        self.judge_epoch(epoch)?;
        let left = self.stack.pop().ok_or("a rollback with nothing live")?;
        let target = self.stack.pop().ok_or("a rollback with nothing to return to")?;
        let placement = Placement { revision, epoch, ..target.clone() };
        self.place(placement.clone());
        self.stack.push(placement);
        if left.bundle_id != from || target.bundle_id != to {
            return Err(format!(
                "a rollback went from {from} to {to}; the live one was {} and {} before it",
                left.bundle_id, target.bundle_id
            ));
        }
        Ok(())
    }

    fn place(&mut self, placement: Placement) {
        self.layer_of.insert(placement.bundle_id.clone(), placement.layer);
        self.by_epoch.insert(placement.epoch, placement);
    }

    fn judge_epoch(&self, epoch: u64) -> Result<(), String> {
        match self.by_epoch.last_key_value() {
            Some((last, _)) if epoch <= *last => {
                Err(format!("epoch {epoch} does not follow epoch {last}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_returns_to_the_bundle_and_layer_before() {
        let mut route = Route::default();
        route.switch(10, 1, "v1", 0).expect("the first bundle goes live");
        route.switch(20, 2, "v2", 1).expect("the second bundle goes live");
        route.roll_back(30, 3, "v2", "v1").expect("back to the first");
        assert_eq!(route.live().map(|live| (live.bundle_id.as_str(), live.layer)), Some(("v1", 0)));
        assert!(route.roll_back(40, 4, "v1", "v2").is_err());
    }

    #[test]
    fn an_epoch_is_used_once() {
        let mut route = Route::default();
        route.switch(10, 1, "v1", 0).expect("the first bundle goes live");
        assert!(route.switch(20, 1, "v2", 1).is_err());
    }
}
