//! `docs/EVENTS.md` lists the types of events that the state machine emits: all of them and no others.

use std::collections::BTreeSet;
use std::path::Path;

/// What a type of event begins with.
const NOUNS: &[&str] = &[
    "cluster",
    "namespace",
    "agent",
    "environment",
    "bundle",
    "drain",
    "route",
    "release",
    "gate",
    "rollback",
    "run",
    "step",
    "memory",
    "eval",
    "signal",
    "hook",
    "drill",
];

fn is_event_type(text: &str) -> bool {
    text.split_once('.').is_some_and(|(noun, verb)| {
        let plain = verb.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        NOUNS.contains(&noun) && plain && !verb.is_empty()
    })
}

/// Texts between `quote`s on a line that are types of events.
fn quoted(text: &str, quote: char) -> BTreeSet<String> {
    let on_line = |line: &str| -> Vec<String> {
        line.split(quote).skip(1).step_by(2).map(str::to_owned).collect()
    };
    text.lines().flat_map(on_line).filter(|text| is_event_type(text)).collect()
}

fn emitted(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // The keys of a policy look alike: `memory.quota`.
        if path.is_dir() && !path.ends_with("agent/policy") {
            emitted(&path, found);
        } else if path.is_file() {
            found.extend(quoted(&std::fs::read_to_string(&path).unwrap(), '"'));
        }
    }
}

#[test]
fn every_event_is_documented() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    emitted(&here.join("src"), &mut found);
    let page = std::fs::read_to_string(here.join("../../docs/EVENTS.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let cell = |row: &&str| row.split('|').nth(1).unwrap_or_default().to_owned();
    let documented = quoted(&rows.iter().map(cell).collect::<Vec<_>>().join("\n"), '`');
    assert_eq!(found, documented);
}
