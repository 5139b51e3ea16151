//! What bundle.toml takes and refuses.

use std::fs;

use super::*;

const FULL: &str = include_str!("../testdata/bundle.toml");
const SMALL: &str =
    "[code]\ngit_commit='c'\n[model]\nprovider='p'\nname='m'\nsnapshot='2026-01-01'\n";

fn commit(name: &str) -> Option<String> {
    (name == "GIT_COMMIT").then(|| "0123abc".to_owned())
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in [
        ("prompts/system.md", "Cite your sources.\n"),
        ("tools/search.input.json", "{\"type\": \"object\"}"),
        ("tools/search.output.json", "{\"type\": \"array\"}"),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    folder
}

fn read(text: &str, set: &[&str]) -> Result<v1::BundleManifest, FileError> {
    let folder = folder();
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let around = Surroundings { variable: &commit, set: &set };
    parse("bundle.toml", text, folder.path(), &around)
}

fn error(text: &str) -> String {
    read(text, &[]).expect_err(text).to_string()
}

#[test]
fn every_part_of_the_full_file_arrives() {
    let manifest = read(FULL, &[]).expect("the full file is valid");
    assert_eq!(manifest.entry, "plan");
    assert_eq!(manifest.message, "cite sources");
    assert_eq!(manifest.labels["team"], "support");
    assert_eq!(manifest.code.expect("code").git_commit, "0123abc");
    let model = &manifest.models["default"];
    assert_eq!(model.snapshot, "20250929");
    let parameters: serde_json::Value = serde_json::from_str(&model.parameters_json).expect("JSON");
    assert_eq!(parameters, serde_json::json!({"temperature": 0.2, "max_tokens": 2048}));
    assert_eq!(manifest.models["judge"].name, "gpt-5-mini");
    assert_eq!(manifest.indexes["kb"].embedding_model, "text-embedding-3-large");
    assert_eq!(manifest.prompts["system"].text, "Cite your sources.\n");
    let tool = &manifest.tools["search"];
    assert_eq!(tool.input_schema_json, "{\"type\":\"object\"}");
    assert_eq!(tool.side_effects(), v1::SideEffects::ReadOnly);
    let plan = &manifest.steps["plan"];
    assert_eq!(plan.start_to_close.expect("given").seconds, 1_200);
    assert_eq!((plan.max_attempts, plan.lease), (Some(2), None));
    assert_eq!(manifest.steps["answer"], v1::StepPolicy::default());
}

#[test]
fn the_least_file_has_code_and_one_model() {
    let manifest = read(SMALL, &[]).expect("enough");
    assert_eq!(manifest.entry, "main");
    assert!(error("[code]\ngit_commit='c'").contains("needs [model]"));
    assert!(error("[model]\nprovider='p'\nname='m'\nsnapshot='1'").contains("needs [code]"));
}

#[test]
fn short_forms_stand_for_default() {
    let text = SMALL.replace("[model]", "[models.default]")
        + "[index]\nversion='1'\nembedding_model='e'\n";
    let manifest = read(&text, &[]).expect("valid");
    assert!(manifest.models.contains_key("default") && manifest.indexes.contains_key("default"));
    let both = format!("{SMALL}[models.default]\nprovider='p'\nname='m'\nsnapshot='1'\n");
    assert_eq!(
        error(&both),
        "bundle.toml:3: model: is short for models.default, which is there too"
    );
}

#[test]
fn floating_snapshots_are_refused_with_their_line() {
    for alias in ["", "latest", "Stable", "CURRENT", "default", "auto", "preview", "M"] {
        let text = SMALL.replace("2026-01-01", alias);
        let error = read(&text, &[]).expect_err(alias);
        assert_eq!(error.reason, "MODEL_NOT_PINNED", "{alias}");
        assert!(error.to_string().starts_with("bundle.toml:6: model.snapshot: "), "{error}");
    }
    let named = SMALL.replace("2026-01-01", "m") + "snapshot_is_name = true\n";
    assert!(read(&named, &[]).is_ok());
}

#[test]
fn set_changes_a_key_before_it_is_judged() {
    let set = ["code.git_commit=feed", "model.parameters.top_k=5", "message=two words"];
    let manifest = read(SMALL, &set).expect("valid");
    assert_eq!(manifest.code.expect("code").git_commit, "feed");
    assert_eq!(manifest.models["default"].parameters_json, "{\"top_k\":5}");
    assert_eq!(manifest.message, "two words");
    let error = read(SMALL, &["code.git_comit=feed"]).expect_err("a typing error");
    assert_eq!(error.to_string(), "--set: unknown key code.git_comit; did you mean git_commit?");
    assert!(read(SMALL, &["nonsense"]).is_err());
}

#[test]
fn an_unset_variable_is_an_error() {
    let text = SMALL.replace("'c'", "'${NOWHERE}'");
    assert_eq!(
        error(&text),
        "bundle.toml:2: code: ${NOWHERE} is not set in the environment; set it or use --set"
    );
    let text = SMALL.replace("'c'", "'$${NOWHERE}'");
    assert_eq!(read(&text, &[]).expect("escaped").code.expect("code").git_commit, "${NOWHERE}");
}

#[test]
fn mistakes_name_file_line_and_key() {
    let cases = [
        ("[modell]\nx=1", "bundle.toml:7: unknown key modell; did you mean model?"),
        (
            "[prompts.a]\nfile='a.md'\ntext='b'",
            "bundle.toml:7: prompts.a: exactly one of file, text, digest is needed",
        ),
        ("[[tools]]\nname='t'", "bundle.toml:7: tools[0].version: is missing"),
        (
            "[[tools]]\nname='t'\nversion='1'",
            "bundle.toml:7: tools[0].side_effects: is missing: read_only, idempotent or destructive",
        ),
        ("[indexes.kb]\nversion='1'", "bundle.toml:7: indexes.kb.embedding_model: is missing"),
        (
            "[steps.a]\nmax_attempts=0",
            "bundle.toml:8: steps.a.max_attempts: 0 is out of range: 1 to 1000",
        ),
        ("[steps.a]\nmax_running=1", "bundle.toml:8: unknown key steps.a.max_running"),
        (
            "[steps.\"a b\"]",
            "bundle.toml:7: steps \"a b\" may hold only A-Z a-z 0-9 . _ - and must begin with a letter or digit",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error(&format!("{SMALL}{text}")), message);
    }
    let missing = error(&format!("{SMALL}[prompts.a]\nfile='nowhere.md'"));
    assert!(missing.starts_with("bundle.toml:8: prompts.a.file: nowhere.md: "), "{missing}");
    let image = SMALL.replace("git_commit='c'", "image='registry/agent:latest'");
    assert!(error(&image).contains("named by its digest"));
}
