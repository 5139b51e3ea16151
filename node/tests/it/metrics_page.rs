//! The page of metrics names what the code publishes, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Texts of the form `pinrail_…` between two of these marks.
fn names(text: &str, mark: char) -> BTreeSet<String> {
    let is_name = |name: &&str| {
        let rest = name.strip_prefix("pinrail_");
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    text.split(mark).filter(is_name).map(str::to_owned).collect()
}

fn sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            found.extend(names(&text, '"'));
        }
    }
}

#[test]
fn the_page_of_metrics_names_what_the_code_publishes() {
    let mut published = BTreeSet::new();
    sources(&root().join("node/src"), &mut published);
    let page = std::fs::read_to_string(root().join("docs/METRICS.md")).expect("the page is there");
    assert_eq!(names(&page, '`'), published);
    assert!(published.len() > 10, "{published:?}");
}
