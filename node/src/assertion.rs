//! What the output of a smoke case is held to, compiled: the same at the door, which refuses what does not compile, and
//! where outputs are judged. It knows no agent and no run.

use jsonschema::Validator;
use pinrail_proto::limits;
use regex::{Regex, RegexBuilder};

/// A JSON Schema. What it refers to must be in it: nothing is fetched.
///
/// # Errors
/// Why it is none.
pub(crate) fn schema(text: &str) -> Result<Validator, String> {
    let json = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    jsonschema::validator_for(&json).map_err(|error| format!("is no JSON Schema: {error}"))
}

/// A regular expression, which searches in time linear to the text; compiled it has at most 1 MiB.
///
/// # Errors
/// Why it is none, on one line.
pub(crate) fn expression(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(limits::SMOKE_REGEX_BYTES).build();
    built.map_err(|error| {
        // The crate draws the place below the expression; its last line says what is wrong.
        let error = error.to_string();
        format!("is no regular expression: {}", error.lines().last().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_compile_or_say_why_not() {
        assert!(schema(r#"{"type":"object"}"#).expect("valid").is_valid(&serde_json::json!({})));
        assert!(schema("{").expect_err("no JSON").starts_with("is no JSON: "));
        assert!(schema(r#"{"type":5}"#).expect_err("no schema").starts_with("is no JSON Schema: "));
        let remote = r#"{"$ref":"http://127.0.0.1:1/schema.json"}"#;
        assert!(schema(remote).is_err(), "nothing is fetched");
    }

    #[test]
    fn expressions_compile_or_say_why_not_on_one_line() {
        assert!(expression("(?i)policy").expect("valid").is_match("our Policy"));
        let wrong = expression("a(").expect_err("not closed");
        assert_eq!(wrong, "is no regular expression: error: unclosed group");
        assert!(expression(&"(a{1000}){1000}".repeat(3)).is_err(), "too large");
    }
}
