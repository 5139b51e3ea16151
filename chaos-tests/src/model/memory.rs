//! Memory as a tree of layers: what a layer sees is the newest version of itself and its ancestors, each up to the
//! revision at which the child froze it.

use std::collections::BTreeMap;

/// Memory of one agent.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Base of each layer and the revision up to which it is seen; the index is the layer.
    bases: Vec<Option<(usize, u64)>>,
    keys: BTreeMap<String, Vec<Written>>,
}

#[derive(Debug, Clone)]
struct Written {
    revision: u64,
    layer: usize,
    value: Option<String>,
}

impl Memory {
    /// A new layer on `base`, which is frozen for it at `revision`.
    pub fn open_layer(&mut self, base: Option<usize>, revision: u64) -> usize {
        self.bases.push(base.map(|base| (base, revision)));
        self.bases.len() - 1
    }

    pub fn write(&mut self, revision: u64, layer: usize, key: &str, value: Option<&str>) {
        let value = value.map(str::to_owned);
        self.keys.entry(key.to_owned()).or_default().push(Written { revision, layer, value });
    }

    /// What a layer sees of a key at a revision: the value and the revision that wrote it.
    #[must_use]
    pub fn visible(&self, layer: usize, key: &str, at_revision: u64) -> Option<(&str, u64)> {
        let seen = self.ancestors(layer, at_revision);
        let written = self
            .keys
            .get(key)?
            .iter()
            .filter(|written| {
                seen.iter()
                    .any(|(layer, up_to)| *layer == written.layer && written.revision <= *up_to)
            })
            .max_by_key(|written| written.revision)?;
        written.value.as_deref().map(|value| (value, written.revision))
    }

    /// A layer and its ancestors, each with the last revision that is seen of it.
    fn ancestors(&self, layer: usize, at_revision: u64) -> Vec<(usize, u64)> {
        let mut list = vec![(layer, at_revision)];
        let (mut layer, mut up_to) = (layer, at_revision);
        while let Some(Some((base, frozen))) = self.bases.get(layer) {
            up_to = up_to.min(*frozen);
            layer = *base;
            list.push((layer, up_to));
        }
        list
    }
}

/// Which of the server's layer numbers stands for which of ours. They are learned from answers, and must agree.
#[derive(Debug, Clone, Default)]
pub struct LayerNames {
    ours: BTreeMap<u64, usize>,
    theirs: BTreeMap<usize, u64>,
}

impl LayerNames {
    /// # Errors
    /// When either number stands for another one already.
    pub fn bind(&mut self, theirs: u64, ours: usize) -> Result<(), String> {
        let known_ours = *self.ours.entry(theirs).or_insert(ours);
        let known_theirs = *self.theirs.entry(ours).or_insert(theirs);
        if known_ours != ours {
            return Err(format!(
                "the server's layer {theirs} is our layer {ours} and our layer {known_ours}"
            ));
        }
        if known_theirs != theirs {
            return Err(format!(
                "our layer {ours} is the server's layer {theirs} and {known_theirs}"
            ));
        }
        Ok(())
    }

    /// Names a layer that no answer has named, by its neighbours: both sides number layers in the order in which switches open
    /// them, so between two that are known the others follow one by one.
    pub fn infer(&mut self, theirs: u64) {
        if self.ours.contains_key(&theirs) {
            return;
        }
        let before = self.ours.range(..theirs).next_back();
        let behind = self.ours.range(theirs..).next();
        if let (Some((low, ours_low)), Some((high, ours_high))) = (before, behind)
            && usize::try_from(high - low).is_ok_and(|apart| ours_low + apart == *ours_high)
            && let Ok(step) = usize::try_from(theirs - low)
        {
            let ours = ours_low + step;
            self.ours.insert(theirs, ours);
            self.theirs.insert(ours, theirs);
        }
    }

    /// Takes the ends of both numberings for each other: with that, layers behind the last one that was named follow one by one,
    /// too, if both sides have as many of them. `last`: the server's newest; `count`: how many we have.
    pub fn end(&mut self, last: u64, count: usize) {
        self.ours.entry(last + 1).or_insert(count);
    }

    #[must_use]
    pub fn ours(&self, theirs: u64) -> Option<usize> {
        self.ours.get(&theirs).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_seen_up_to_its_freeze_and_a_rolled_back_layer_is_not_seen() {
        let mut memory = Memory::default();
        let old = memory.open_layer(None, 1);
        memory.write(5, old, "k", Some("before"));
        let new = memory.open_layer(Some(old), 10);
        memory.write(11, old, "k", Some("late"));
        assert_eq!(memory.visible(new, "k", 99), Some(("before", 5)));
        memory.write(12, new, "k", Some("new"));
        assert_eq!(memory.visible(new, "k", 99), Some(("new", 12)));
        assert_eq!(memory.visible(old, "k", 99), Some(("late", 11)));
        memory.write(13, new, "k", None);
        assert_eq!(memory.visible(new, "k", 99), None);
        assert_eq!(memory.visible(new, "k", 12), Some(("new", 12)));
    }

    #[test]
    fn layer_names_must_agree() {
        let mut names = LayerNames::default();
        assert!(names.bind(7, 0).is_ok());
        assert!(names.bind(7, 0).is_ok());
        assert!(names.bind(7, 1).is_err());
        assert!(names.bind(8, 0).is_err());
    }

    #[test]
    fn a_layer_that_nobody_named_is_between_its_neighbours() {
        let mut names = LayerNames::default();
        names.bind(1, 0).expect("the first");
        names.bind(4, 3).expect("the fourth");
        names.bind(9, 5).expect("layers were opened in between that are none of ours");
        names.infer(3);
        names.infer(6);
        names.infer(10);
        assert_eq!([3, 6, 10].map(|theirs| names.ours(theirs)), [Some(2), None, None]);
        names.end(11, 8);
        names.infer(10);
        assert_eq!(names.ours(10), Some(6), "both sides have two more");
    }
}
