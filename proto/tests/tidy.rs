//! The house rules that a program can check: layers import only downward, files stay readable, nothing is left
//! over, and the page of promises names code that exists.

use std::fs;
use std::path::{Path, PathBuf};

/// A file with more lines has a seam that nobody looked for.
const MAX_LINES: usize = 800;

/// Files and the words that they must not hold: what a layer must not know.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    // (where, forbidden words, exceptions)
    ("node/src", &["rocksdb::"], &["node/src/storage"]),
    ("node/src", &["openraft::"], &["node/src/raft"]),
    ("node/src", &["pinrail_client"], &["node/src/main.rs", "node/src/command"]),
    ("node/state-machine/src", &["tokio", "rocksdb", "openraft", "tonic", "f64", "f32"], &[]),
    // Nothing may depend on its order. Records are looked for by their keys, and never gone through.
    ("node/state-machine/src", &["HashMap"], &["node/state-machine/src/records.rs"]),
    ("client/src", &["pinrail_node", "pinrail_state_machine", "rocksdb", "openraft"], &[]),
    ("chaos-tests/src/model", &["pinrail_node", "pinrail_state_machine", "pinrail_client"], &[]),
    ("chaos-tests/src/check", &["pinrail_node", "pinrail_state_machine", "pinrail_client"], &[]),
    ("proto/src", &["tokio", "std::fs", "std::net"], &[]),
];

#[test]
fn layers_import_only_downward() {
    let mut wrong = Vec::new();
    for (place, words, exceptions) in LAYERS {
        for file in rust_files(&root().join(place)) {
            let name = relative(&file);
            if exceptions.iter().any(|exception| name.starts_with(exception)) {
                continue;
            }
            for (number, line) in code(&file) {
                if words.iter().any(|word| line.contains(word)) {
                    wrong.push(format!("{name}:{number}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "a layer knows what it must not know:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_enough_to_read() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|file| (read(&file).lines().count(), relative(&file)))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|file| !read(file).trim_start().starts_with("//!"))
        .map(|file| relative(&file))
        .collect();
    assert!(silent.is_empty(), "without a `//!` header: {silent:?}");
}

#[test]
fn nothing_is_left_over() {
    // Spelled in two parts, so that this file does not find itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"], ["#[ig", "nore"]]
        .map(|w| w.concat());
    let mut found = Vec::new();
    for file in sources() {
        for (number, line) in read(&file).lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", relative(&file), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "left over:\n{}", found.join("\n"));
}

#[test]
fn invariants_page_names_code_that_exists() {
    let page = read(&root().join("docs/INVARIANTS.md"));
    let all: String = sources().iter().map(|file| read(file)).collect();
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("| P")) {
        for name in line.split('`').skip(1).step_by(2) {
            let function = name.rsplit("::").next().unwrap_or(name);
            assert!(
                all.contains(&format!("fn {function}")),
                "docs/INVARIANTS.md names `{name}`, which does not exist"
            );
            named += 1;
        }
    }
    assert!(named >= 16, "each promise names what enforces it and what checks it");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

fn sources() -> Vec<PathBuf> {
    ["proto", "node", "client", "chaos-tests"]
        .iter()
        .flat_map(|dir| rust_files(&root().join(dir)))
        .collect()
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let path = entry.expect("a folder of the repository can be listed").path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Lines that are not comments.
fn code(file: &Path) -> Vec<(usize, String)> {
    read(file)
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line.to_owned()))
        .collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).to_string_lossy().into_owned()
}
