//! What the output of a run on a synthetic input must satisfy: a JSON Schema, texts that it contains, a regular expression.

use pinrail_proto::v1::{Payload, SmokeCase};

use crate::assertion;

/// Whether an output is as a case expects it.
///
/// # Errors
/// The first expectation that it breaks, in words.
pub(super) fn satisfies(case: &SmokeCase, output: Option<&Payload>) -> Result<(), String> {
    let bytes = output.map(|output| output.data.clone()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    if !case.schema.is_empty() {
        fits(&case.schema, &bytes)?;
    }
    for part in &case.contains {
        if !text.contains(part.as_str()) {
            return Err(format!("the output does not contain {part:?}"));
        }
    }
    if !case.matches.is_empty() {
        let pattern = assertion::expression(&case.matches)
            .map_err(|rule| format!("what it should match {rule}"))?;
        if !pattern.is_match(&text) {
            return Err(format!("the output does not match {:?}", case.matches));
        }
    }
    Ok(())
}

fn fits(schema: &str, output: &[u8]) -> Result<(), String> {
    let schema = assertion::schema(schema).map_err(|rule| format!("the schema {rule}"))?;
    let output: serde_json::Value = serde_json::from_slice(output)
        .map_err(|error| format!("the output is no JSON: {error}"))?;
    schema.validate(&output).map_err(|error| {
        format!("the output breaks its schema at {}: {error}", error.instance_path())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Payload {
        Payload { content_type: "application/json".to_owned(), data: text.to_owned().into() }
    }

    #[test]
    fn each_expectation_is_told_apart() {
        let schema = r#"{"type":"object","required":["answer"]}"#.to_owned();
        let case = SmokeCase {
            schema,
            contains: vec!["refund".to_owned()],
            matches: "(?i)policy".to_owned(),
            ..SmokeCase::default()
        };
        let said = |output: Option<&Payload>| satisfies(&case, output).err().unwrap_or_default();
        assert_eq!(said(Some(&json(r#"{"answer":"refund Policy"}"#))), "");
        assert!(said(Some(&json(r#"{"reply":"refund policy"}"#))).contains("breaks its schema"));
        assert!(said(Some(&json(r#"{"answer":"policy"}"#))).contains("does not contain"));
        assert!(said(Some(&json(r#"{"answer":"refund"}"#))).contains("does not match"));
        assert!(said(None).contains("no JSON"));
    }
}
