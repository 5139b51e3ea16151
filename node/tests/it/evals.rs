//! Evals as people use them: the binary's verbs against a node, with files that the tools really wrote.

use std::path::{Path, PathBuf};
use std::process::Output;

use pinrail_client::{Client, v1};
use tokio::process::Command;

use crate::nodes::{Nodes, agent};

const BINARY: &str = env!("CARGO_BIN_EXE_pinrail");

/// A file that a tool wrote.
fn file(name: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../client/src/cli/eval/import/testdata").join(name)
}

async fn pinrail(nodes: &Nodes, words: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["--endpoint", &nodes.endpoint(0), "--timeout", "30s"]).args(words);
    command.output().await.expect("the binary runs")
}

/// Runs a verb that ends well; what it printed as JSON.
pub(crate) async fn json(nodes: &Nodes, words: &[&str]) -> serde_json::Value {
    let said = pinrail(nodes, &[words, &["-o", "json"]].concat()).await;
    assert_eq!(said.status.code(), Some(0), "{words:?}: {said:?}");
    serde_json::from_slice(&said.stdout).expect("JSON")
}

/// Runs a verb that is refused; its reason and the line that explains it.
pub(crate) async fn refused(nodes: &Nodes, words: &[&str], exit: i32) -> (String, String) {
    let said = pinrail(nodes, &[words, &["-o", "json"]].concat()).await;
    assert_eq!(said.status.code(), Some(exit), "{words:?}: {said:?}");
    let errors = String::from_utf8_lossy(&said.stderr);
    let last = errors.lines().rev().find(|line| line.starts_with('{')).expect("an error");
    let error: serde_json::Value = serde_json::from_str(last).expect("JSON");
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

async fn reports(client: &Client) -> Vec<v1::EvalReport> {
    let request = v1::ListEvalReportsRequest { agent_id: "support".into(), ..Default::default() };
    client.evals().list_reports(request).await.expect("the reports").reports
}

#[tokio::test]
async fn files_of_the_tools_become_reports_with_the_right_counts() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    for (name, format, counts) in [
        ("promptfoo.json", "promptfoo", (2, 1, 1)),
        ("inspect.eval", "inspect", (0, 3, 0)),
        ("inspect_error.json", "inspect", (1, 1, 1)),
        ("deepeval.json", "deepeval", (1, 1, 1)),
        ("junit.xml", "junit", (1, 1, 1)),
    ] {
        let path = file(name).display().to_string();
        let answer = json(&nodes, &["eval", "submit", "support", "v1", "-f", &path]).await;
        let report = &answer["report"];
        let summary = &report["summary"];
        let count = |key: &str| summary[key].as_u64().expect("a count");
        assert_eq!((count("passed"), count("failed"), count("errors")), counts, "{name}");
        assert_eq!(report["format"], format);
    }
    let all = reports(&client).await;
    assert_eq!(all.len(), 5);
    let path = file("junit.xml").display().to_string();
    let again = json(&nodes, &["evals", "submit", "support", "v1", "-f", &path]).await;
    assert_eq!(again["already"], true);
    assert_eq!(reports(&client).await.len(), 5);
    let failed = json(&nodes, &["eval", "show", "support", "v1", "--failed"]).await;
    assert_eq!(failed["report"]["results"].as_array().expect("a list").len(), 2);
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_truncated_or_altered_file_stores_nothing() {
    let nodes = Nodes::start(1).await;
    let client = nodes.client();
    agent(&client).await;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, data: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, data).expect("a file");
        path.display().to_string()
    };
    let read = |name: &str| std::fs::read(file(name)).expect("a file");
    let (zip, json) = (read("inspect.eval"), read("promptfoo.json"));
    let mut flipped = zip.clone();
    let member = zip.windows(8).position(|bytes| bytes == b"samples/").expect("a sample");
    flipped[member + 100] ^= 1;
    let text = String::from_utf8(json.clone()).expect("text");
    let altered = text.replacen("\"successes\": 2", "\"successes\": 3", 1);
    for (path, says) in [
        (write("cut.eval", &zip[..zip.len() / 2]), "truncated or altered"),
        (write("flipped.eval", &flipped), "truncated or altered"),
        (write("cut.json", &json[..json.len() / 2]), "truncated or altered"),
        (write("altered.json", altered.as_bytes()), "does not add up: it says 3 successes"),
        (file("inspect_failed.eval").display().to_string(), "was not finished"),
        (write("other.json", b"{\"a\": 1}"), "no known shape"),
    ] {
        let words = ["eval", "submit", "support", "v1", "-f", path.as_str()];
        let (reason, message) = refused(&nodes, &words, 2).await;
        assert_eq!(reason, "INVALID_EVAL_REPORT");
        assert!(message.contains(says), "{path}: {message}");
    }
    assert_eq!(reports(&client).await, []);
    nodes.stop_all().await;
}

#[tokio::test]
async fn a_changed_set_is_refused_and_a_report_must_fit_its_set() {
    let nodes = Nodes::start(1).await;
    agent(&nodes.client()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("core.toml");
    let toml = |question: &str| {
        format!(
            "[metrics]\ntone = 'judge'\n\n[[examples]]\nid = 'refund-1'\ncategory = 'refund'\n\
             input = {{ question = '{question}' }}\n"
        )
    };
    let words = ["eval", "set", "create", "support", "core@14", "-f"];
    let words: Vec<&str> = words.into_iter().chain([path.to_str().expect("text")]).collect();
    std::fs::write(&path, toml("Where is it?")).expect("a file");
    let made = json(&nodes, &words).await;
    assert_eq!(made["set"]["example_count"], 1);
    assert_eq!(json(&nodes, &words).await["already"], true);
    std::fs::write(&path, toml("Where is it now?")).expect("a file");
    let (reason, message) = refused(&nodes, &words, 7).await;
    assert_eq!(reason, "EVAL_SET_CONFLICT");
    let digest = made["set"]["digest"].as_str().expect("a digest");
    assert!(message.contains(digest), "{message}");
    let results = file("promptfoo.json").display().to_string();
    let submit = ["eval", "submit", "support", "v1", "-f", &results, "--set", "core@14"];
    let (reason, message) = refused(&nodes, &submit, 2).await;
    assert_eq!(reason, "INVALID_EVAL_REPORT");
    assert!(message.contains("3 of 4 results are of no example"), "{message}");
    // A set of the file's own examples fits.
    json(&nodes, &["eval", "set", "create", "support", "core@15", "--from", &results]).await;
    let submit = ["eval", "submit", "support", "v1", "-f", &results, "--set", "core@15"];
    assert_eq!(json(&nodes, &submit).await["report"]["set"], "core@15");
    let shown = json(&nodes, &["eval", "set", "show", "support", "core"]).await;
    assert_eq!(shown["set"]["set"], "core@15");
    let table = pinrail(&nodes, &["eval", "coverage", "support", "v1"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("core@15: 4 examples"), "{table:?}");
    let judged = ["eval", "judge", "support", "v1", "--set", "core@15"];
    let (reason, message) = refused(&nodes, &judged, 3).await;
    assert_eq!(reason, "GATE_NOT_PASSED");
    assert!(message.contains("v1 did not pass evals"), "{message}");
    nodes.stop_all().await;
}
