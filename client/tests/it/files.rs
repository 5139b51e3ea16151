//! The example's files, read by the loader that the command line uses.

use std::path::{Path, PathBuf};

use pinrail_client::cli::file::{agent, bundle};
use pinrail_client::v1;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/research").join(name)
}

fn load(name: &str) -> v1::BundleManifest {
    let around = bundle::Surroundings { variable: &|_| None, set: &[] };
    bundle::load(&example(name), &around).expect("the bundle of the example is valid")
}

#[test]
fn the_bundles_of_the_example_differ_in_prompt_index_and_tool() {
    let (v1, v2) = (load("bundle-v1.toml"), load("bundle-v2.toml"));
    assert_ne!(v1.prompts["system"], v2.prompts["system"]);
    assert_ne!(v1.indexes["corpus"].version, v2.indexes["corpus"].version);
    assert_ne!(v1.tools["search"].version, v2.tools["search"].version);
    assert_ne!(v1.tools["search"].output_schema_json, v2.tools["search"].output_schema_json);
    for manifest in [&v1, &v2] {
        let steps: Vec<_> = manifest.steps.keys().map(String::as_str).collect();
        assert_eq!(steps, ["answer", "plan", "read", "retrieve"]);
        assert!(manifest.prompts.values().all(|prompt| !prompt.text.is_empty()));
    }
}

#[test]
fn the_policy_of_the_example_is_valid() {
    let policy = agent::load(&example("agent.toml")).expect("the policy of the example is valid");
    let runs = policy.runs.expect("it says something of runs");
    assert_eq!(runs.max_age.map(|age| age.seconds), Some(3_600));
}
