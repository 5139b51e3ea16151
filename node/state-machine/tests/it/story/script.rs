//! The text of a story: comments, commands, and what is written beneath them.

use super::line::Line;
use super::world::World;
use super::{command, question};

/// The part of a script that a person wrote; what came of it is told anew each time.
#[derive(Debug)]
pub(super) struct Script {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// A comment or an empty line.
    Words(String),
    Command(String),
}

impl Script {
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("> ") {
                parts.push(Part::Command(command.trim().to_owned()));
            } else if line.is_empty() || line.starts_with('#') {
                parts.push(Part::Words(line.to_owned()));
            } else {
                assert!(line.starts_with("    "), "neither comment, command nor answer: {line:?}");
            }
        }
        Self { parts }
    }

    /// The whole script, with what came of each command in this world.
    pub(super) fn told_by(&self, world: &mut World) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Words(words) => text.push_str(words),
                Part::Command(command) => {
                    text.push_str("> ");
                    text.push_str(command);
                    for line in answer(world, command) {
                        text.push_str("\n    ");
                        text.push_str(&line);
                    }
                }
            }
            text.push('\n');
        }
        world.check_replay();
        text
    }
}

/// Carries out one line and tells what came of it.
pub(super) fn answer(world: &mut World, text: &str) -> Vec<String> {
    let mut line = Line::parse(text);
    let told = match question::ask(world, &mut line) {
        Some(told) => told,
        None => command::carry_out(world, &mut line),
    };
    line.expect_used_up();
    told
}
