//! The closing table.

use std::fmt;

use super::play::{Ending, state};

pub(super) struct Closing<'a> {
    pub(super) endings: &'a [Ending],
}

impl fmt::Display for Closing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ncandidate                                    came to      after    why")?;
        for ending in self.endings {
            let why = ending.evidence.last().map_or("", String::as_str);
            let name = format!("{}: {}", ending.chapter.agent, ending.chapter.about);
            let took = format!("{:.1?}", ending.took);
            writeln!(f, "  {name:<42} {:<12} {took:<8} {why}", state(&ending.release))?;
        }
        for problem in self.endings.iter().filter_map(|ending| ending.problem.as_ref()) {
            writeln!(f, "  WRONG {problem}")?;
        }
        let right = self.endings.iter().all(|ending| ending.problem.is_none());
        let verdict = if right {
            "every candidate came to what it deserves"
        } else {
            "A CANDIDATE CAME TO SOMETHING ELSE"
        };
        writeln!(f, "\n{verdict}")
    }
}
