//! For verbs of the binary that need no cluster: who asks, how answers look, how errors read.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::Value as Json;

use super::problem::{self, Problem};
use super::settings::{Globals, Output, Settings};
use super::table::pairs;
use super::view::{Body, View};

/// What such a verb is given.
#[derive(Debug)]
pub struct Offline {
    /// Who asks, for the audit.
    pub actor: String,
    output: Output,
}

/// Why a verb did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Something failed: exit 1.
    Failed,
    /// It was asked wrongly: exit 2.
    Usage,
    /// A safety check spoke against it: exit 9.
    Unsafe,
}

impl Offline {
    /// Reads settings and environment.
    ///
    /// # Errors
    /// The exit code, when they hold a mistake; it is on stderr already.
    pub fn new(globals: &Globals) -> Result<Self, ExitCode> {
        match Settings::load(globals) {
            Ok(settings) => Ok(Self { actor: settings.actor.value, output: settings.output.value }),
            Err(problem) => {
                problem.print(globals.output.unwrap_or_default());
                Err(ExitCode::from(problem.exit))
            }
        }
    }

    /// Prints an answer: `rows` for people, `json` for programs.
    #[must_use]
    pub fn show(&self, json: Json, name: &str, rows: &[(&str, String)]) -> ExitCode {
        let view = View::other(json, None, vec![name.to_owned()], Body::Text(pairs(rows)));
        match view.print(self.output) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => self.print(&problem),
        }
    }

    /// Prints why nothing was done, and what to do next.
    #[must_use]
    pub fn refuse(&self, reason: &str, refusal: Refusal, message: &str, next: &[&str]) -> ExitCode {
        let exit = match refusal {
            Refusal::Failed => problem::ERROR,
            Refusal::Usage => problem::USAGE,
            Refusal::Unsafe => problem::REFUSED,
        };
        let mut problem = Problem::new(reason, exit, message);
        problem.next = next.iter().map(|line| (*line).to_owned()).collect();
        self.print(&problem)
    }

    /// Has a person type a word, which says that they have read what is above it.
    ///
    /// # Errors
    /// The exit code, when nobody can be asked or something else was typed.
    pub fn have_typed(&self, question: &str, word: &str) -> Result<(), ExitCode> {
        if !std::io::stdin().is_terminal() || self.output.is_structured() {
            let message = format!("{question} Nobody can be asked here");
            let next = ["the same command with --yes"];
            return Err(self.refuse("CONFIRMATION_NEEDED", Refusal::Usage, &message, &next));
        }
        eprint!("{question} ");
        // Nothing is lost when the question does not show: the answer is another one then.
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        match std::io::stdin().lock().read_line(&mut answer) {
            Ok(_) if answer.trim() == word => Ok(()),
            Ok(_) | Err(_) => {
                Err(self.refuse("NOT_CONFIRMED", Refusal::Failed, "nothing was done", &[]))
            }
        }
    }

    fn print(&self, problem: &Problem) -> ExitCode {
        problem.print(self.output);
        ExitCode::from(problem.exit)
    }
}
