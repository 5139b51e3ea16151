//! The digest by which the schemas of a tool are compared: two texts of the same JSON have the same one.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// SHA-256 in lower-case hex over the input and the output schema, each with sorted keys and without blanks, and each behind
/// its length in 8 bytes, big-endian. A text that is no JSON counts as it is; one that is empty as empty.
#[must_use]
pub fn schema_digest(input: &str, output: &str) -> String {
    let mut hash = Sha256::new();
    for schema in [input, output] {
        let text = canonical(schema);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with sorted keys and without blanks.
#[must_use]
pub fn canonical(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => sorted(value).to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Sorted whatever the order in which this build of the JSON library keeps keys.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> =
                fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_the_order_of_keys_do_not_count() {
        let one = schema_digest(r#"{"type":"object","required":["a","b"]}"#, "");
        let same = schema_digest("{ \"required\": [\"a\", \"b\"],\n \"type\": \"object\" }", "");
        assert_eq!(one, same);
        assert_ne!(one, schema_digest(r#"{"type":"object","required":["b","a"]}"#, ""));
        assert_ne!(one, schema_digest("", r#"{"type":"object","required":["a","b"]}"#));
        assert_ne!(schema_digest("{}", ""), schema_digest("", "{}"));
        assert_eq!(schema_digest("{", ""), schema_digest("{", ""));
        assert_eq!(one.len(), 64);
    }
}
