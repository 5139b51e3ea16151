//! Files that the tools really wrote: promptfoo 0.121.20 (provider `echo`), Inspect AI 0.3.285 (`mockllm/model`, two
//! epochs; events left out), DeepEval 4.3.1, pytest. What they hold is known, so every count is checked; then each is cut
//! and altered in every way that a disk or a hand may do it.

use pinrail_proto::v1;
use v1::EvalOutcome as Outcome;

use super::{Choice, Format, ImportError, Imported, import};

const PROMPTFOO: &[u8] = include_bytes!("testdata/promptfoo.json");
const PROMPTFOO_ERRORS: &[u8] = include_bytes!("testdata/promptfoo_errors.json");
const PROMPTFOO_LINES: &[u8] = include_bytes!("testdata/promptfoo.jsonl");
const INSPECT: &[u8] = include_bytes!("testdata/inspect.json");
const INSPECT_ZIP: &[u8] = include_bytes!("testdata/inspect.eval");
const INSPECT_ERROR: &[u8] = include_bytes!("testdata/inspect_error.json");
const INSPECT_FAILED: &[u8] = include_bytes!("testdata/inspect_failed.eval");
const DEEPEVAL: &[u8] = include_bytes!("testdata/deepeval.json");
const JUNIT: &[u8] = include_bytes!("testdata/junit.xml");
const PLAIN: &[u8] = br#"{
  "tool": "our own",
  "metrics": {"exact": "structured", "tone": "judge"},
  "results": [
    {"id": "a", "category": "refund", "passed": true, "scores": {"exact": true, "tone": 0.8}},
    {"id": "b", "passed": false, "message": "off", "cost": 0.002, "input_tokens": 7},
    {"id": "c", "error": "no connection"}
  ],
  "summary": {"passed": 1, "failed": 1, "errors": 1}
}"#;

fn auto(data: &[u8]) -> Result<Imported, ImportError> {
    import(data, Format::Auto, &Choice::default())
}

/// Passed, failed, errors.
fn counts(imported: &Imported) -> (usize, usize, usize) {
    let count = |outcome| imported.results.iter().filter(|it| it.outcome() == outcome).count();
    (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::Error))
}

fn result<'a>(imported: &'a Imported, id: &str) -> &'a v1::EvalResult {
    imported.results.iter().find(|it| it.example_id == id).expect("the example is there")
}

fn kinds(imported: &Imported) -> Vec<(&str, v1::MetricKind)> {
    imported.metrics.iter().map(|it| (it.name.as_str(), it.kind())).collect()
}

#[test]
fn real_files_are_told_by_their_shape_and_counted_right() {
    for (data, format, is) in [
        (PROMPTFOO, Format::Promptfoo, (2, 1, 1)),
        (PROMPTFOO_LINES, Format::Promptfoo, (2, 1, 1)),
        (PROMPTFOO_ERRORS, Format::Promptfoo, (1, 1, 2)),
        (INSPECT, Format::Inspect, (0, 3, 0)),
        (INSPECT_ZIP, Format::Inspect, (0, 3, 0)),
        (INSPECT_ERROR, Format::Inspect, (1, 1, 1)),
        (DEEPEVAL, Format::Deepeval, (1, 1, 1)),
        (JUNIT, Format::Junit, (1, 1, 1)),
        (PLAIN, Format::Pinrail, (1, 1, 1)),
    ] {
        let imported = auto(data).expect("it is read");
        assert_eq!((imported.format, counts(&imported)), (format, is), "{}", imported.tool);
    }
}

#[test]
fn promptfoo_tells_graders_that_broke_from_failures() {
    let imported = auto(PROMPTFOO).expect("it is read");
    let broken = result(&imported, "broken-grader");
    assert_eq!(broken.outcome(), Outcome::Error);
    assert!(broken.scores.is_empty() && broken.message.contains("no connection"), "{broken:?}");
    let failed = result(&imported, "refund-2");
    assert_eq!((failed.outcome(), failed.category.as_str()), (Outcome::Failed, "refund"));
    assert_eq!(failed.scores.len(), 2);
    let structured = v1::MetricKind::Structured;
    let all =
        [("names-the-thing", structured), ("polite", structured), ("tone", v1::MetricKind::Judge)];
    assert_eq!(kinds(&imported), all);
    assert!(imported.notes.iter().any(|note| note.contains("grader")), "{:?}", imported.notes);
    let upstream = auto(PROMPTFOO_ERRORS).expect("it is read");
    let (error, paid) = (result(&upstream, "shipping-1"), result(&upstream, "refund-1"));
    assert_eq!((error.outcome(), error.message.as_str()), (Outcome::Error, "503 upstream"));
    assert_eq!((paid.input_tokens, paid.output_tokens, paid.cost_micros), (5, 7, 1_500));
}

#[test]
fn promptfoo_with_two_providers_asks_which() {
    let two = String::from_utf8(PROMPTFOO_LINES.to_vec()).expect("text");
    let other = two.replace("\"id\":\"echo\"", "\"id\":\"other\"");
    let both = format!("{two}\n{other}");
    let error = auto(both.as_bytes()).expect_err("two columns");
    assert!(
        matches!(&error, ImportError::Choose(why) if why.contains("\"echo\", \"other\"")),
        "{error}"
    );
    let choice = Choice { provider: Some("other".to_owned()), ..Choice::default() };
    let imported = import(both.as_bytes(), Format::Auto, &choice).expect("one column");
    assert_eq!(counts(&imported), (2, 1, 1));
}

#[test]
fn inspect_epochs_are_tries_and_a_scorer_may_be_chosen() {
    for data in [INSPECT, INSPECT_ZIP] {
        let imported = auto(data).expect("it is read");
        let shipping = result(&imported, "shipping-1");
        assert_eq!((shipping.trials, shipping.trials_passed), (2, 1));
        assert_eq!(shipping.category, "shipping");
        assert_eq!((shipping.input_tokens, shipping.output_tokens), (10, 14));
        let choice = Choice { pass: Some(("tone".to_owned(), 0.7)), ..Choice::default() };
        let by_tone = import(data, Format::Auto, &choice).expect("it is read");
        assert_eq!(counts(&by_tone), (3, 0, 0));
        let choice = Choice { pass: Some(("taste".to_owned(), 0.7)), ..Choice::default() };
        assert!(matches!(import(data, Format::Auto, &choice), Err(ImportError::Choose(_))));
    }
    let error = auto(INSPECT_ERROR).expect("it is read");
    assert!(result(&error, "refund-2").message.contains("no connection to the tool"));
}

#[test]
fn an_evaluation_that_was_not_finished_is_refused() {
    let error = auto(INSPECT_FAILED).expect_err("its status is error");
    assert!(matches!(&error, ImportError::Unfinished(why) if why.contains("\"error\"")), "{error}");
    let text = String::from_utf8(INSPECT.to_vec()).expect("text");
    for (from, to) in [
        ("\"status\": \"success\"", "\"status\": \"started\""),
        ("\"status\": \"success\"", "\"status\": \"cancelled\""),
        ("\"invalidated\": false", "\"invalidated\": true"),
    ] {
        let altered = text.replacen(from, to, 1);
        assert_ne!(altered, text, "{from}");
        assert!(matches!(auto(altered.as_bytes()), Err(ImportError::Unfinished(_))), "{to}");
    }
}

#[test]
fn deepeval_metrics_that_broke_are_errors() {
    let imported = auto(DEEPEVAL).expect("it is read");
    let broken = result(&imported, "shipping-1");
    assert_eq!(broken.outcome(), Outcome::Error);
    assert!(broken.message.contains("no connection to the judge"), "{broken:?}");
    assert_eq!(result(&imported, "refund-1").cost_micros, 2_000);
    let all = [("Exact Match", v1::MetricKind::Structured), ("Tone", v1::MetricKind::Judge)];
    assert_eq!(kinds(&imported), all);
}

#[test]
fn contents_of_examples_are_the_same_in_each_file_of_one_evaluation() {
    let (json, zip) = (auto(INSPECT).expect("read"), auto(INSPECT_ZIP).expect("read"));
    assert_eq!(json.contents, zip.contents);
    assert_eq!(json.contents.len(), 3);
    assert_eq!(
        auto(PROMPTFOO).expect("read").contents,
        auto(PROMPTFOO_LINES).expect("read").contents
    );
    assert!(auto(JUNIT).expect("read").contents.is_empty());
}

/// Cut anywhere, a file is refused. (A file of lines that is cut between two lines is whole as far as it goes.)
#[test]
fn a_truncated_file_is_refused_wherever_it_was_cut() {
    for data in [PROMPTFOO, PROMPTFOO_ERRORS, INSPECT, INSPECT_ZIP, DEEPEVAL, JUNIT, PLAIN] {
        let whole = data.trim_ascii_end().len();
        for end in (0..whole).step_by(whole / 150 + 1).chain([whole - 1]) {
            let error = auto(&data[..end]).expect_err("it is cut");
            let broken = matches!(
                error,
                ImportError::Json { .. } | ImportError::Broken(_) | ImportError::Unknown(_)
            );
            assert!(broken, "cut at {end}: {error}");
        }
    }
}

/// Every byte of an archive's members is under a checksum: no flipped bit gives other results.
#[test]
fn a_flipped_bit_of_an_archive_never_gives_other_results() {
    let whole = auto(INSPECT_ZIP).expect("it is read");
    let mut refused = 0;
    for at in (0..INSPECT_ZIP.len()).step_by(11) {
        let mut altered = INSPECT_ZIP.to_vec();
        altered[at] ^= 0x10;
        match auto(&altered) {
            // Times of members, and journals, which are not read.
            Ok(imported) => assert_eq!(imported, whole, "byte {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn a_file_that_does_not_add_up_with_its_own_summary_is_refused() {
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).expect("text");
    for (file, from, to) in [
        (PROMPTFOO, "\"successes\": 2", "\"successes\": 3"),
        (PROMPTFOO, "\"success\": false", "\"success\": true"),
        (PROMPTFOO_ERRORS, "\"errors\": 1", "\"errors\": 0"),
        (INSPECT, "\"total_samples\": 6", "\"total_samples\": 7"),
        (INSPECT, "\"value\": \"I\"", "\"value\": \"C\""),
        (INSPECT_ERROR, "\"completed_samples\": 2", "\"completed_samples\": 3"),
        (DEEPEVAL, "\"testPassed\": 1", "\"testPassed\": 2"),
        (DEEPEVAL, "\"success\": true", "\"success\": false"),
        (JUNIT, "failures=\"1\"", "failures=\"0\""),
        (JUNIT, "tests=\"4\"", "tests=\"5\""),
        (PLAIN, "\"passed\": 1", "\"passed\": 2"),
    ] {
        let file = text(file);
        let compact = from.replace(": ", ":");
        let (from, to) = match file.contains(from) {
            true => (from.to_owned(), to.to_owned()),
            false => (compact, to.replace(": ", ":")),
        };
        let altered = file.replacen(&from, &to, 1);
        assert_ne!(altered, file, "{from}");
        let error = auto(altered.as_bytes()).expect_err(&to);
        assert!(matches!(error, ImportError::Count { .. }), "{to}: {error}");
    }
}

#[test]
fn other_files_are_refused_and_say_what_they_are() {
    for (data, says) in [
        (&b""[..], "empty"),
        (b"hello", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b"{\"a\": 1}", "its keys are a"),
        (b"<html></html>", "<html>"),
        (b"PK\x03\x04", "archive"),
        (b"{\"results\": {\"version\": 2, \"stats\": {\"successes\": 0, \"failures\": 0}, \"results\": []}}", "version 2"),
        (b"{\"results\": [{\"id\": \"a\"}]}", "either `passed` or `error`"),
        (b"{\"results\": [{\"id\": \"a\", \"passes\": true}]}", "passes"),
    ] {
        let error = auto(data).expect_err("it is nothing").to_string();
        assert!(error.contains(says), "{error}");
    }
    let forced = import(JUNIT, Format::Deepeval, &Choice::default());
    assert!(matches!(forced, Err(ImportError::Json { .. })));
}
