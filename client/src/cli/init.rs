//! `init`: the files of a new agent: its policy, its first bundle, a worker in the language asked for, and a smoke case.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pinrail_proto::id;

use super::context::Done;
use super::problem::{self, Problem};
use super::view;

/// A file of the new agent: where it goes, and its parts.
type File = (&'static str, &'static [&'static str]);

/// Written only where there is none.
const IGNORE: &str = ".gitignore";

/// What every agent has.
const COMMON: &[File] = &[
    ("agent.toml", &[include_str!("template/common/agent.toml")]),
    ("prompts/system.md", &[include_str!("template/common/system.md")]),
    ("smoke/refund.json", &[include_str!("template/common/refund.json")]),
];

const BUNDLE: &str = include_str!("template/common/bundle.toml");
/// The part of the bundle, and the schemas, of the agents that call a tool.
const WITH_TOOL: &[File] = &[
    ("bundle.toml", &[BUNDLE, include_str!("template/common/tools.toml")]),
    ("tools/search.input.json", &[include_str!("template/common/search.input.json")]),
    ("tools/search.output.json", &[include_str!("template/common/search.output.json")]),
];

const PYTHON: &[File] = &[
    ("agent.py", &[include_str!("template/python/agent.py")]),
    ("pinrail_exec.py", &[include_str!("../../examples/exec/pinrail_exec.py")]),
    (IGNORE, &["__pycache__/\n"]),
];
const RUST: &[File] = &[
    ("Cargo.toml", &[include_str!("template/rust/Cargo.toml.txt")]),
    ("src/main.rs", &[include_str!("template/rust/main.rs")]),
    ("src/agent.rs", &[include_str!("template/rust/agent.rs")]),
    (IGNORE, &["/target\n"]),
];
const SHELL: &[File] =
    &[("bundle.toml", &[BUNDLE]), ("agent.sh", &[include_str!("template/shell/agent.sh")])];

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  pinrail init my-agent\n  pinrail init --lang shell my-agent\n  pinrail init --lang rust my-agent --client ../pinrail/client"
)]
pub struct Init {
    /// Folder of the agent; its name is the name of the agent
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Language of the worker
    #[arg(long, value_name = "LANG", default_value = "python")]
    lang: Lang,
    /// Folder of the pinrail-client crate, for Rust; default: the repository of this release
    #[arg(long, value_name = "PATH")]
    client: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Lang {
    Python,
    Rust,
    Shell,
}

impl Lang {
    fn files(self) -> Vec<File> {
        let own: &[&[File]] = match self {
            Lang::Python => &[COMMON, WITH_TOOL, PYTHON],
            Lang::Rust => &[COMMON, WITH_TOOL, RUST],
            Lang::Shell => &[COMMON, SHELL],
        };
        own.concat()
    }

    /// What starts a worker of the bundle `v1`.
    fn start(self, agent: &str) -> String {
        match self {
            Lang::Python => {
                format!("pinrail worker exec {agent} --bundle v1 -- python3 agent.py")
            }
            Lang::Rust => "PINRAIL_BUNDLE=v1 cargo run".to_owned(),
            Lang::Shell => {
                format!("pinrail worker exec {agent} --bundle v1 --per-step -- ./agent.sh")
            }
        }
    }
}

pub(super) fn init(args: &Init) -> Done {
    let absolute = std::path::absolute(&args.dir)
        .map_err(|cause| Problem::usage(format!("{}: {cause}", args.dir.display())))?;
    let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    id::check_name("the folder's name", &name)?;
    let client = dependency(args.client.as_deref())?;
    let mut files = args.lang.files();
    // An agent may come into a repository that has its own.
    files.retain(|(path, _)| *path != IGNORE || !absolute.join(path).exists());
    if let Some((path, _)) = files.iter().find(|(path, _)| absolute.join(path).exists()) {
        let path = args.dir.join(path);
        let message = format!("{} exists already; init overwrites nothing", path.display());
        return Err(Problem::new("EXISTS", 7, message));
    }
    for (path, parts) in files {
        let text = parts
            .concat()
            .replace("{{agent}}", &name)
            .replace("{{package}}", &package(&name))
            .replace("{{client}}", &client);
        write(&absolute.join(path), &text)?;
        view::write(format!("{}\n", args.dir.join(path).display()).as_bytes())?;
    }
    say_next(args, &name);
    Ok(problem::OK)
}

fn say_next(args: &Init, name: &str) {
    let start = args.lang.start(name);
    let mut steps = vec![
        format!("pinrail agent create {name} -f agent.toml"),
        format!("pinrail bundle create {name} v1 -f bundle.toml"),
        format!("{start}          # in another terminal"),
        format!("pinrail switch {name} v1"),
        format!("pinrail run start {name} --input @smoke/refund.json --wait"),
    ];
    if args.dir != Path::new(".") {
        steps.insert(0, format!("cd {}", args.dir.display()));
    }
    for (index, step) in steps.iter().enumerate() {
        eprintln!("{}{step}", if index == 0 { "next  " } else { "      " });
    }
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
    std::fs::write(path, text).map_err(failed)?;
    if text.starts_with("#!") {
        use std::os::unix::fs::PermissionsExt as _;
        let program = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, program).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::file;
    use super::*;

    const LANGS: [Lang; 3] = [Lang::Python, Lang::Rust, Lang::Shell];

    fn args(dir: PathBuf, lang: Lang) -> Init {
        Init { dir, lang, client: None }
    }

    #[test]
    fn the_files_of_every_language_pass_their_own_loaders() {
        for lang in LANGS {
            let folder = tempfile::tempdir().expect("a folder");
            let dir = folder.path().join("My.agent");
            assert_eq!(init(&args(dir.clone(), lang)), Ok(0));
            assert_eq!(
                file::agent::load(&dir.join("agent.toml")).expect("a valid policy").description,
                "My.agent"
            );
            let around = file::bundle::Surroundings { variable: &|_| None, set: &[] };
            let manifest = file::bundle::load(&dir.join("bundle.toml"), &around).expect("valid");
            assert_eq!(manifest.steps.len(), 2);
            assert!(!manifest.prompts["system"].text.is_empty());
            assert_eq!(manifest.tools.len(), usize::from(lang != Lang::Shell));
            let case = std::fs::read_to_string(dir.join("smoke/refund.json")).expect("a file");
            let case: serde_json::Value = serde_json::from_str(&case).expect("it is JSON");
            assert_eq!(case["question"], "Where is my refund?");
        }
    }

    #[test]
    fn a_rust_worker_is_a_package_and_a_script_a_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("7.Agents");
        assert_eq!(init(&args(dir.clone(), Lang::Rust)), Ok(0));
        let cargo = std::fs::read_to_string(dir.join("Cargo.toml")).expect("a file");
        let cargo: toml::Table = toml::from_str(&cargo).expect("it is TOML");
        assert_eq!(cargo["package"]["name"].as_str(), Some("agent-7-agents"));
        let main = std::fs::read_to_string(dir.join("src/main.rs")).expect("a file");
        assert!(main.contains(r#".agent("7.Agents")"#), "{main}");
        let dir = folder.path().join("shell");
        assert_eq!(init(&args(dir.clone(), Lang::Shell)), Ok(0));
        let mode = std::fs::metadata(dir.join("agent.sh")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_written_beside_it() {
        for lang in LANGS {
            let folder = tempfile::tempdir().expect("a folder");
            let dir = folder.path().join("there");
            std::fs::create_dir(&dir).expect("a folder");
            std::fs::write(dir.join("bundle.toml"), "mine").expect("a file");
            let problem = init(&args(dir.clone(), lang)).expect_err("a file is there");
            assert_eq!((problem.reason.as_str(), problem.exit), ("EXISTS", 7));
            assert!(problem.message.contains("bundle.toml"), "{}", problem.message);
            assert_eq!(std::fs::read_dir(&dir).expect("a folder").count(), 1);
            assert_eq!(std::fs::read_to_string(dir.join("bundle.toml")).expect("a file"), "mine");
        }
    }
}
