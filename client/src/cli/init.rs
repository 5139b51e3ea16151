//! `init`: the files of a new agent, with a worker that compiles against `pinrail-client`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pinrail_proto::id;

use super::context::Done;
use super::problem::{self, Problem};
use super::view;

/// Where each file goes, and what is in it.
const FILES: &[(&str, &str)] = &[
    ("agent.toml", include_str!("template/agent.toml")),
    ("bundle.toml", include_str!("template/bundle.toml")),
    ("prompts/system.md", include_str!("template/system.md")),
    ("Cargo.toml", include_str!("template/Cargo.toml.txt")),
    ("src/main.rs", include_str!("template/main.rs.txt")),
    (".gitignore", "/target\n"),
];

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail init my-agent\n  pinrail init my-agent --client ../pinrail/client"
)]
pub struct Init {
    /// New folder; its name is the name of the agent
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Language of the worker
    #[arg(long, value_name = "LANG", default_value = "rust")]
    lang: Lang,
    /// Folder of the pinrail-client crate; default: the repository of this release
    #[arg(long, value_name = "PATH")]
    client: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    Rust,
    Shell,
    Python,
}

pub(super) fn init(args: &Init) -> Done {
    if args.lang != Lang::Rust {
        let message = "only --lang rust is here yet; shell and python come with `worker exec`";
        return Err(Problem::usage(message));
    }
    let absolute = std::path::absolute(&args.dir)
        .map_err(|cause| Problem::usage(format!("{}: {cause}", args.dir.display())))?;
    let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    id::check_name("the folder's name", &name)?;
    if absolute.exists() {
        let message =
            format!("{} exists already; init writes only new folders", args.dir.display());
        return Err(Problem::new("EXISTS", 7, message));
    }
    let client = dependency(args.client.as_deref())?;
    for (path, template) in FILES {
        let text = template
            .replace("{{agent}}", &name)
            .replace("{{package}}", &package(&name))
            .replace("{{client}}", &client);
        write(&absolute.join(path), &text)?;
        view::write(format!("{}\n", args.dir.join(path).display()).as_bytes())?;
    }
    let dir = args.dir.display();
    eprintln!("next  cd {dir}");
    eprintln!("      pinrail agent create {name} -f agent.toml");
    eprintln!("      pinrail bundle create {name} v1 -f bundle.toml");
    eprintln!("      PINRAIL_BUNDLE=v1 cargo run            in another terminal");
    eprintln!("      pinrail switch {name} v1");
    eprintln!("      pinrail run start {name} --input '{{\"question\":\"What is this?\"}}' --wait");
    Ok(problem::OK)
}

/// Cargo takes fewer names than we do.
fn package(agent: &str) -> String {
    let name: String = agent
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("agent-{name}") } else { name }
}

/// The dependency on the client library: a folder, or the repository of this release.
fn dependency(client: Option<&Path>) -> Result<String, Problem> {
    let Some(folder) = client else {
        return Ok(format!("{{ git = {:?} }}", env!("CARGO_PKG_REPOSITORY")));
    };
    let manifest = folder.join("Cargo.toml");
    let folder = std::path::absolute(folder)
        .ok()
        .filter(|_| manifest.is_file())
        .ok_or_else(|| Problem::usage(format!("{} does not exist", manifest.display())))?;
    Ok(format!("{{ path = {:?} }}", folder.display().to_string()))
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let failed = |cause: std::io::Error| {
        Problem::new("NOT_WRITTEN", 1, format!("{}: {cause}", path.display()))
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn args(dir: PathBuf, lang: Lang) -> Init {
        Init { dir, lang, client: None }
    }

    #[test]
    fn the_files_pass_their_own_loaders() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("My.agent");
        assert_eq!(init(&args(dir.clone(), Lang::Rust)), Ok(0));
        assert_eq!(
            file::agent::load(&dir.join("agent.toml")).expect("a valid policy").description,
            "My.agent"
        );
        let around = file::bundle::Surroundings { variable: &|_| None, set: &[] };
        let manifest = file::bundle::load(&dir.join("bundle.toml"), &around).expect("valid");
        assert_eq!(manifest.steps.len(), 2);
        assert!(!manifest.prompts["system"].text.is_empty());
        let cargo = std::fs::read_to_string(dir.join("Cargo.toml")).expect("a file");
        assert!(toml::from_str::<toml::Table>(&cargo).is_ok(), "{cargo}");
        assert!(cargo.contains("name = \"my-agent\""), "{cargo}");
    }

    #[test]
    fn nothing_is_overwritten_and_other_languages_say_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let problem = init(&args(folder.path().join("."), Lang::Rust)).expect_err("it exists");
        assert!([2, 7].contains(&problem.exit));
        let problem = init(&args(folder.path().join("new"), Lang::Python)).expect_err("not yet");
        assert!(problem.message.contains("only --lang rust"));
        assert!(!folder.path().join("new").exists());
    }
}
