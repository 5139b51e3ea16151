//! Seeds of the simulation, which are to find every bug.

use std::ops::ControlFlow;

use anyhow::Result;
use pinrail_node::mutant::{Mutant, VARIABLE};

use super::{Engine, Found, first_complaint};
use crate::simulation::command::{BROKEN, begin, each};

/// Seeds `first..first + most`.
#[derive(Debug)]
pub struct Seeds {
    pub first: u64,
    pub most: u64,
}

impl Engine for Seeds {
    fn bugs(&self) -> Vec<Mutant> {
        Mutant::ALL.to_vec()
    }

    fn hunt(&self, mutant: Mutant) -> Result<Option<Found>> {
        let mut found = None;
        let begin = |seed| begin(seed, Some((VARIABLE, mutant.name())));
        each(self.first..self.first + self.most, begin, |seed, output| {
            if output.status.code() != Some(i32::from(BROKEN)) {
                return ControlFlow::Continue(());
            }
            let how = first_complaint(&String::from_utf8_lossy(&output.stdout));
            let how = how.unwrap_or_else(|| "see its report".to_owned());
            found = Some(Found { run: format!("seed {seed}"), how });
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn budget(&self) -> String {
        format!("{} seeds", self.most)
    }
}
