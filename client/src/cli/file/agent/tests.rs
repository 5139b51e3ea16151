//! What agent.toml takes and refuses.

use std::fs;

use pinrail_proto::time::{duration, millis};

use super::*;

fn read(text: &str) -> Result<v1::Policy, FileError> {
    parse("agent.toml", text, Path::new(""))
}

fn error(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

fn gates(text: &str) -> v1::GatesPolicy {
    read(text).expect(text).gates.expect("filled in")
}

#[test]
fn an_empty_file_is_the_default_policy() {
    assert_eq!(read("").expect("valid"), default_policy());
}

#[test]
fn drain_cap_follows_max_age() {
    let policy = read("[runs]\nmax_age = '90m'").expect("valid");
    let cap = policy.switch.and_then(|switch| switch.drain_cap).expect("filled in");
    assert_eq!(cap.seconds, 5_400);
}

#[test]
fn decimals_become_thousandths() {
    let policy = read("steps.backoff = { factor = 1.5, jitter = 0 }").expect("valid");
    let backoff = policy.steps.and_then(|steps| steps.backoff).expect("given");
    assert_eq!((backoff.factor_permille, backoff.jitter_permille), (Some(1_500), Some(0)));
    assert_eq!(backoff.initial.expect("filled in").seconds, 1);
}

#[test]
fn unknown_keys_name_file_line_key_and_neighbour() {
    let cases = [
        (
            "\n[runs]\nmax_agee = '1h'",
            "agent.toml:3: unknown key runs.max_agee; did you mean max_age?",
        ),
        ("[nonsense]\nx = 1", "agent.toml:1: unknown key nonsense"),
        (
            "[gates.evals]\nsett = ''",
            "agent.toml:2: unknown key gates.evals.sett; did you mean set?",
        ),
        (
            "[[hooks]]\nname = 'a'\nurl = 'http://h'\nsecrets = ''",
            "agent.toml:4: unknown key hooks[0].secrets; did you mean secret?",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error(text), message);
    }
}

#[test]
fn values_out_of_range_name_the_range() {
    let cases = [
        ("[runs]\nmax_age = '31d'", "agent.toml:2: runs.max_age: 31d is out of range: 1s to 30d"),
        ("[runs]\nmax_age = '0s'", "agent.toml:2: runs.max_age: 0s is out of range: 1s to 30d"),
        ("[runs]\nmax_open = 0", "agent.toml:2: runs.max_open: 0 is out of range: 1 to 2000000"),
        ("[runs]\nmax_open = -1", "agent.toml:2: runs.max_open: -1 is out of range: 1 to 2000000"),
        ("[steps]\nlease = '2h'", "agent.toml:2: steps.lease: 2h is out of range: 1s to 1h"),
        (
            "steps.backoff.factor = 0.5",
            "agent.toml:1: steps.backoff.factor: 0.5 is out of range: 1.0 to 100.0, at most three digits after the point",
        ),
        (
            "[gates.evals]\nconfidence = 1.0",
            "agent.toml:2: gates.evals.confidence: 1 is out of range: 0.5 to 0.999, at most three digits after the point",
        ),
        (
            "[gates.canary]\nsteps = [\n  { share = '120%', hold = '1h' },\n]",
            "agent.toml:3: gates.canary.steps[0].share: 120% is out of range: 0.01% to 100%",
        ),
        (
            "[gates.shadow]\nmax_cost = '2000000000'",
            "agent.toml:2: gates.shadow.max_cost: 2000000000 is out of range: 0.00 to 1000000000.00",
        ),
        ("[signals]\nwindow = '1s'", "agent.toml:2: signals.window: 1s is out of range: 10s to 1d"),
        ("[drill]\nevery = '1s'", "agent.toml:2: drill.every: 1s is out of range: 1m to 365d"),
        (
            "[environment]\nmin_slots = 1000001",
            "agent.toml:2: environment.min_slots: 1000001 is out of range: 0 to 1000000",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error(text), message);
    }
    assert!(error("[runs]\nmax_age = '-5s'").contains("negative"));
    assert!(error("[runs]\nmax_age = 5").contains("is an integer, expected a string"));
    assert!(error("[memory]\nquota = '1 elephant'").contains("is no size"));
    assert!(error("[runs]\nexecution = 'magic'").contains("none of workers, external"));
    assert!(error("[gates.smoke]\nmode = 'auto'").contains("none of required, optional, off"));
    assert!(error("[gates.shadow]\nmax_cost = '$5'").contains("is no amount"));
}

#[test]
fn what_a_later_version_brings_is_never_silently_ignored() {
    assert_eq!(
        error("[rollback]\nsessions = 'keep'"),
        "agent.toml:2: rollback.sessions: not supported yet; only the default \"end\" is accepted"
    );
    assert_eq!(read("[rollback]\nsessions = 'end'").expect("valid"), default_policy());
}

#[test]
fn a_default_written_otherwise_is_still_the_default() {
    let text =
        "[sessions]\nmax_age = '1d'\n[gates.evals]\nmin_pass_rate = 0.9\n[quarantine]\nmin='1d'";
    assert_eq!(read(text).expect("defaults"), default_policy());
}

#[test]
fn syntax_errors_name_their_line() {
    assert!(error("a = 1\n\n[runs\n").starts_with("agent.toml:3: "));
}

#[test]
fn canary_shares_are_basis_points_that_grow() {
    let gate = gates(
        "[gates.canary]\nmode = 'required'\nsteps = [{ share = '0.5%', hold = '10m' }, { share = '25%', hold = '1h' }]\n\
         include = { tenant = ['internal', 'beta'] }",
    )
    .canary
    .expect("given");
    let steps: Vec<_> = gate.steps.iter().map(|step| (step.share_bp, step.hold)).collect();
    assert_eq!(steps, [(50, Some(duration(600_000))), (2_500, Some(duration(3_600_000)))]);
    assert_eq!(gate.include["tenant"].values, ["internal", "beta"]);
    let cases = [
        (
            "steps = [{ share = '5%', hold = '1h' }, { share = '5%', hold = '1h' }]",
            "agent.toml:2: gates.canary.steps[1].share: is not more than the 5% before",
        ),
        ("steps = []", "agent.toml:2: gates.canary.steps: 1 to 20 steps"),
        ("steps = [{ share = '5%' }]", "agent.toml:2: gates.canary.steps[0].hold: is missing"),
        (
            "steps = [{ share = '5%', hold = '7h' }]",
            "agent.toml:1: gates.canary.timeout: 6h is less than the 7h that its steps hold together",
        ),
        (
            "auto_parts = []",
            "agent.toml:2: gates.canary.auto_parts: names no part; mode = \"off\" is what never runs",
        ),
        (
            "auto_parts = ['weights']",
            "agent.toml:2: gates.canary.auto_parts: \"weights\" is none of code, prompts, model, index, tools",
        ),
        (
            "include = { tenant = 'x' }",
            "agent.toml:2: gates.canary.include.tenant: is a string, expected a list of strings",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error(&format!("[gates.canary]\n{text}")), message);
    }
}

#[test]
fn shadow_rises_from_one_share_to_another() {
    let shadow = |text: &str| gates(&format!("[gates.shadow]\n{text}")).shadow.expect("given");
    assert_eq!(shadow("share = ['1%', '50%']").share_bp, [100, 5_000]);
    assert_eq!(shadow("share = ['7%']").share_bp, [700, 700]);
    assert_eq!(shadow("max_cost = '0.50'").max_cost_micros, Some(500_000));
    assert_eq!(shadow("compare = 'judge'\njudge_step = 'grade'").judge_step, "grade");
    for wrong in ["share = []", "share = ['50%', '1%']", "share = ['1%', '2%', '3%']"] {
        let message = error(&format!("[gates.shadow]\n{wrong}"));
        assert!(
            message.starts_with("agent.toml:2: gates.shadow.share: one share, or"),
            "{message}"
        );
    }
    assert!(error("[gates.shadow]\ncompare = 'judge'").contains("judge_step: is missing"));
    assert!(error("[gates.shadow]\nignore = ['id']").contains("is no JSON pointer"));
}

#[test]
fn smoke_cases_read_files_beside_the_policy() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("smoke")).expect("a folder");
    for (name, text) in [
        ("question.json", "{ \"question\": 1 }"),
        ("letter.txt", "Dear all"),
        ("schema.json", "{ \"type\": \"object\" }"),
        ("bad.json", "{ \"type\": 5 }"),
    ] {
        fs::write(folder.path().join("smoke").join(name), text).expect("a file");
    }
    let read = |text: &str| parse("agent.toml", text, folder.path());
    let text = "
[[gates.smoke.cases]]
name   = 'refund'
input  = { question = 'Where is my refund?' }
within = '30s'
entry  = 'plan'
expect = { schema = 'smoke/schema.json', contains = ['refund'], matches = '(?i)policy' }

[[gates.smoke.cases]]
name = 'file'
input_file = 'smoke/question.json'

[[gates.smoke.cases]]
name = 'letter'
input_file = 'smoke/letter.txt'
";
    let smoke = read(text).expect("valid").gates.and_then(|gates| gates.smoke).expect("given");
    let [refund, file, letter] = &smoke.cases[..] else { panic!("three cases") };
    let data = |case: &v1::SmokeCase| {
        let input = case.input.clone().expect("given");
        (input.content_type, String::from_utf8(input.data.to_vec()).expect("text"))
    };
    let json = "application/json".to_owned();
    assert_eq!(data(refund), (json.clone(), r#"{"question":"Where is my refund?"}"#.to_owned()));
    assert_eq!(data(file), (json, r#"{"question":1}"#.to_owned()));
    assert_eq!(data(letter).1, "Dear all");
    assert_eq!(refund.schema, r#"{"type":"object"}"#);
    assert_eq!((refund.contains.len(), refund.matches.as_str()), (1, "(?i)policy"));
    assert_eq!(refund.within.as_ref().and_then(millis), Some(30_000));
    assert_eq!(file.within.as_ref().and_then(millis), Some(60_000));
    let cases = [
        ("name = ''", ":2: gates.smoke.cases[0].name: is empty"),
        ("input = 1", ":1: gates.smoke.cases[0].name: is missing"),
        ("name = 'a b'", ":2: gates.smoke.cases[0].name: "),
        (
            "name = 'a'\ninput = 1\ninput_file = 'x'",
            ":4: gates.smoke.cases[0].input_file: input and",
        ),
        (
            "name = 'a'\ninput_file = 'smoke/none.json'",
            ":3: gates.smoke.cases[0].input_file: smoke/none.json: ",
        ),
        (
            "name = 'a'\nexpect.matches = '('",
            ":3: gates.smoke.cases[0].expect.matches: is no regular expression: ",
        ),
        (
            "name = 'a'\nexpect.schema = 'smoke/bad.json'",
            ":3: gates.smoke.cases[0].expect.schema: is no JSON Schema: ",
        ),
        (
            "name = 'a'\nexpect.contains = ['']",
            ":3: gates.smoke.cases[0].expect.contains: a text has 1 to",
        ),
        (
            "name = 'a'\nwithin = '2h'",
            ":3: gates.smoke.cases[0].within: 2h is out of range: 1s to 1h",
        ),
    ];
    for (text, message) in cases {
        let text = format!("[[gates.smoke.cases]]\n{text}");
        let error = read(&text).expect_err(&text).to_string();
        assert!(error.starts_with(&format!("agent.toml{message}")), "{error}");
    }
    let twice = "[[gates.smoke.cases]]\nname = 'a'\n[[gates.smoke.cases]]\nname = 'a'";
    assert_eq!(error(twice), "agent.toml:3: gates.smoke.cases[1].name: a is there twice");
}

#[test]
fn a_policy_is_bounded_as_a_whole() {
    let mut text = String::new();
    for case in 0..100 {
        let input = "x".repeat(6_000);
        text.push_str(&format!("[[gates.smoke.cases]]\nname = 'c{case}'\ninput = '{input}'\n"));
    }
    let error = read(&text).expect_err("too large");
    assert_eq!(error.reason, "LIMIT_EXCEEDED");
    assert!(error.message.contains("at most 524288"), "{error}");
}

#[test]
fn signals_may_say_their_own_modes() {
    let policy = read(
        "[signals]\ncanary = 'notify'\n[signals.p95_latency]\nquarantine = 'rollback'\nmax_ratio = 1.5\n\
         [signals.drift]\ncanary = 'off'",
    )
    .expect("valid");
    let signals = policy.signals.expect("given");
    assert_eq!(signals.canary(), v1::SignalMode::Notify);
    let latency = signals.p95_latency.expect("given");
    let modes = latency.modes.expect("given");
    assert_eq!(modes.canary(), v1::SignalMode::Unspecified);
    assert_eq!(modes.quarantine(), v1::SignalMode::Rollback);
    assert_eq!(latency.max_ratio_permille, Some(1_500));
    let drift = signals.drift.and_then(|drift| drift.modes).expect("given");
    assert_eq!(drift.canary(), v1::SignalMode::Off);
}

#[test]
fn release_and_quarantine_are_checked_together_with_their_defaults() {
    let policy = read(
        "[release]\nhold_before = ['canary', 'switch']\non_gate_failure = 'hold'\n[switch]\nstrategy = 'drain'\n\
         [memory]\nlate_writes = 'block_recycle'",
    )
    .expect("valid");
    assert_eq!(policy.release.expect("given").hold_before, ["canary", "switch"]);
    assert_eq!(policy.switch.expect("given").strategy(), v1::Strategy::Drain);
    assert_eq!(policy.memory.expect("given").late_writes(), v1::LateWrites::BlockRecycle);
    assert_eq!(
        error("[quarantine]\nmin = '4d'"),
        "agent.toml:2: quarantine.max: 3d is less than quarantine.min: 4d"
    );
    assert!(error("[release]\nhold_before = ['lunch']").contains("\"lunch\" is none of prepare"));
    assert!(error("[release]\nhold_before = ['switch', 'switch']").contains("is there twice"));
}

#[test]
fn drills_have_a_time_and_a_window() {
    let policy =
        read("[drill]\nevery = '14d'\nwindow = 'Tue-Thu 13:00-16:00 Europe/Berlin'\nmode = 'live'")
            .expect("valid");
    let drill = policy.drill.expect("given");
    assert_eq!(drill.every.as_ref().and_then(millis), Some(14 * 86_400_000));
    assert_eq!(drill.mode(), v1::DrillMode::Live);
    assert_eq!(
        error("[drill]\nwindow = 'Tue 13-16 UTC'"),
        "agent.toml:2: drill.window: \"Tue 13-16 UTC\"; expected times such as 13:00-16:00 that differ"
    );
}

#[test]
fn hooks_are_checked_and_secrets_not_shown() {
    let policy = read(
        "[[hooks]]\nname = 'pager'\nurl = 'https://pager.example/x'\nevents = ['signal.*']\n\
         secret = 'env:PAGER_SECRET'\ngate = 'switch'",
    )
    .expect("valid");
    assert_eq!(policy.hooks.len(), 1);
    assert_eq!(policy.hooks[0].events, ["signal.*"]);
    let good = "[[hooks]]\nname = 'a'\nurl = 'http://h'\n";
    let cases = [
        ("[[hooks]]\nurl = 'http://h'".to_owned(), "agent.toml:1: hooks[0].name: is missing"),
        (
            "[[hooks]]\nname = 'a'\nurl = 'ftp://h'".to_owned(),
            "agent.toml:3: hooks[0].url: is no http",
        ),
        (
            format!("{good}events = ['signal*']"),
            "agent.toml:4: hooks[0].events: \"signal*\" is no type",
        ),
        (format!("{good}secret = 'hunter2'"), "agent.toml:4: hooks[0].secret: is no env:NAME"),
        (
            format!("{good}gate = 'lunch'"),
            "agent.toml:4: hooks[0].gate: \"lunch\" is none of prepare",
        ),
        (format!("{good}{good}"), "agent.toml:4: hooks[1].name: a is there twice"),
    ];
    for (text, message) in cases {
        let error = error(&text);
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
