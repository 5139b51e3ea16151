//! How two outputs differ: not at all, or in a few words. Pure.

use serde_json::Value;

/// Byte for byte.
pub(super) fn exact(before: &[u8], after: &[u8]) -> Option<String> {
    (before != after).then(|| "the outputs differ".to_owned())
}

/// By JSON structure: numbers within a relative tolerance, pointers in `ignore` left out. Outputs that are no JSON are
/// compared byte for byte.
pub(super) fn json(
    before: &[u8],
    after: &[u8],
    tolerance_permille: u32,
    ignore: &[String],
) -> Option<String> {
    let (Ok(before_json), Ok(after_json)) =
        (serde_json::from_slice::<Value>(before), serde_json::from_slice::<Value>(after))
    else {
        return exact(before, after);
    };
    differs(&before_json, &after_json, "", f64::from(tolerance_permille) / 1_000.0, ignore)
}

/// The same tools in the same order.
pub(super) fn trajectories(before: &[String], after: &[String]) -> Option<String> {
    if before == after {
        return None;
    }
    let at = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let name = |calls: &[String]| calls.get(at).map_or("nothing", String::as_str).to_owned();
    Some(format!("call {}: {} and {}", at + 1, name(before), name(after)))
}

/// Where two values differ first.
fn differs(
    before: &Value,
    after: &Value,
    at: &str,
    tolerance: f64,
    ignore: &[String],
) -> Option<String> {
    if ignore.iter().any(|pointer| pointer == at) {
        return None;
    }
    let place = if at.is_empty() { "/" } else { at };
    match (before, after) {
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
            names.sort_unstable();
            names.dedup();
            names.into_iter().find_map(|name| {
                let below = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                match (one.get(name), other.get(name)) {
                    (Some(one), Some(other)) => differs(one, other, &below, tolerance, ignore),
                    _ if ignore.contains(&below) => None,
                    (Some(_), None) => Some(format!("{below} is missing")),
                    (None, _) => Some(format!("{below} is new")),
                }
            })
        }
        (Value::Array(one), Value::Array(other)) => {
            if one.len() != other.len() {
                return Some(format!("{place}: {} and {} items", one.len(), other.len()));
            }
            one.iter().zip(other).enumerate().find_map(|(index, (one, other))| {
                differs(one, other, &format!("{at}/{index}"), tolerance, ignore)
            })
        }
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64()?, other.as_f64()?);
            let near = (one - other).abs() <= tolerance * one.abs().max(other.abs());
            (!near).then(|| format!("{place}: {one} and {other}"))
        }
        (one, other) => (one != other).then(|| format!("{place} differs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(before: &str, after: &str, ignore: &[&str]) -> String {
        let ignore: Vec<String> = ignore.iter().map(ToString::to_string).collect();
        json(before.as_bytes(), after.as_bytes(), 10, &ignore).unwrap_or_default()
    }

    #[test]
    fn json_differs_by_structure_and_numbers_by_more_than_the_tolerance() {
        assert_eq!(said(r#"{"a":1,"b":[1,2]}"#, r#"{"b":[1,2],"a":1}"#, &[]), "");
        assert_eq!(said(r#"{"n":100}"#, r#"{"n":100.9}"#, &[]), "");
        assert_eq!(said(r#"{"n":100}"#, r#"{"n":102}"#, &[]), "/n: 100 and 102");
        assert_eq!(said(r#"{"a":"x"}"#, r#"{"a":"y"}"#, &[]), "/a differs");
        assert_eq!(said(r#"{"a":1}"#, "{}", &[]), "/a is missing");
        assert_eq!(said("{}", r#"{"a":1}"#, &[]), "/a is new");
        assert_eq!(said("[1]", "[1,2]", &[]), "/: 1 and 2 items");
        assert_eq!(said(r#"{"at":1,"x":{"id":1}}"#, r#"{"x":{"id":2}}"#, &["/at", "/x/id"]), "");
    }

    #[test]
    fn what_is_no_json_is_compared_byte_for_byte() {
        assert_eq!(said("hello", "hello", &[]), "");
        assert_eq!(said("hello", "hullo", &[]), "the outputs differ");
    }

    #[test]
    fn a_trajectory_names_the_first_call_that_differs() {
        let calls = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let two = calls(&["search", "refund"]);
        assert_eq!(trajectories(&two, &two), None);
        let said = trajectories(&two, &calls(&["search"])).unwrap_or_default();
        assert_eq!(said, "call 2: refund and nothing");
    }
}
