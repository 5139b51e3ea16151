//! `completion`: a script that completes the whole grammar.

use clap::Args;
use clap_complete::Shell;

use super::context::Done;
use super::problem;
use super::view::write;

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  pinrail completion bash\n  pinrail completion zsh")]
pub struct Completion {
    /// Shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn completion(args: &Completion) -> Done {
    write(&script(args.shell))?;
    Ok(problem::OK)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::root(), "pinrail", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell)).expect("text");
            for word in ["rollback", "transfer-leader", "--namespace"] {
                let found = script.contains(word) || script.contains(word.trim_start_matches('-'));
                assert!(found, "{shell}: {word}");
            }
        }
    }
}
