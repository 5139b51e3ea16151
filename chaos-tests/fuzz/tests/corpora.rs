//! What was interesting once stays so: every target survives every file of its corpus, in a build without libFuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pinrail_fuzz::TARGETS;

fn corpora() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora")
}

#[test]
fn every_target_survives_its_corpus() {
    for target in TARGETS {
        let folder = corpora().join(target.name);
        let mut files = 0;
        for file in fs::read_dir(&folder).expect("every target has a corpus") {
            let file = file.expect("it is listed").path();
            eprintln!("{}", file.display());
            (target.run)(&fs::read(&file).expect("it is read"));
            files += 1;
        }
        assert!(files > 0, "{} is empty", folder.display());
        // Nothing, and one of each byte.
        (target.run)(b"");
        (0..=u8::MAX).for_each(|byte| (target.run)(&[byte; 64]));
    }
}

#[test]
fn every_corpus_has_a_target() {
    let folders: BTreeSet<String> = fs::read_dir(corpora())
        .expect("it is there")
        .map(|folder| folder.expect("it is listed").file_name().to_string_lossy().into_owned())
        .collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(folders, targets);
}
