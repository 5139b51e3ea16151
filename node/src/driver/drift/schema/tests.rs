//! One rule of JSON Schema a line: what it was, what it is, and what that means for arguments and for replies.

use super::*;
use serde_json::json;

fn part(input: &Value, output: &Value) -> ToolPart {
    ToolPart {
        input_schema_json: input.to_string(),
        output_schema_json: output.to_string(),
        ..ToolPart::default()
    }
}

fn seen(input: &Value, output: &Value) -> ToolSeen {
    ToolSeen {
        name: "search".to_owned(),
        digest: "d".to_owned(),
        input_schema_json: input.to_string(),
        output_schema_json: output.to_string(),
    }
}

fn side(old: &Value, new: &Value, side: Side) -> (DriftClass, Vec<String>) {
    let same = json!({});
    let (class, changes) = match side {
        Side::Input => compare(&part(old, &same), &seen(new, &same)),
        Side::Output => compare(&part(&same, old), &seen(&same, new)),
    };
    let told = changes.iter().map(|it| format!("{}: {}", it.path, it.what));
    (class, told.collect())
}

const OK: DriftClass = DriftClass::Compatible;
const BREAKS: DriftClass = DriftClass::Breaking;

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

#[test]
fn every_rule_has_its_class_on_either_side() {
    let text = || json!({"type": "string"});
    let cases = [
        // (was, is, as arguments, as replies)
        (object(json!({"a": text()}), &[]), object(json!({}), &[]), BREAKS, BREAKS),
        (object(json!({}), &[]), object(json!({"a": text()}), &[]), OK, OK),
        (object(json!({}), &[]), object(json!({"a": text()}), &["a"]), BREAKS, OK),
        (object(json!({"a": text()}), &["a"]), object(json!({"a": text()}), &[]), OK, BREAKS),
        (json!({"type": "number"}), json!({"type": "integer"}), BREAKS, OK),
        (json!({"type": "integer"}), json!({"type": "number"}), OK, BREAKS),
        (json!({"type": "string"}), json!({"type": ["string", "null"]}), OK, BREAKS),
        (
            json!({"type": "string"}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            OK,
            BREAKS,
        ),
        (json!({"type": "string"}), json!({"type": "integer"}), BREAKS, BREAKS),
        (json!({}), json!({"type": "string"}), BREAKS, OK),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["a"]}), BREAKS, OK),
        (json!({"enum": ["a"]}), json!({"enum": ["a", "b"]}), OK, BREAKS),
        (json!({"const": 1}), json!({"const": 2}), BREAKS, BREAKS),
        (json!({"minimum": 1}), json!({"minimum": 2}), BREAKS, OK),
        (json!({"maxLength": 10}), json!({"maxLength": 20}), OK, BREAKS),
        (json!({"maxItems": 10}), json!({}), OK, BREAKS),
        (json!({"uniqueItems": true}), json!({}), OK, BREAKS),
        (json!({}), json!({"pattern": "^a"}), BREAKS, OK),
        (json!({"pattern": "^a"}), json!({"pattern": "^b"}), BREAKS, BREAKS),
        (json!({}), json!({"additionalProperties": false}), BREAKS, OK),
        (json!({"additionalProperties": false}), json!({}), OK, BREAKS),
        (
            json!({"items": {"type": "string"}}),
            json!({"items": {"type": "integer"}}),
            BREAKS,
            BREAKS,
        ),
        (
            json!({"anyOf": [{"minimum": 1}]}),
            json!({"anyOf": [{"minimum": 1}, {"maximum": 0}]}),
            OK,
            BREAKS,
        ),
        (
            json!({"allOf": [{"minimum": 1}]}),
            json!({"allOf": [{"minimum": 1}, {"maximum": 9}]}),
            BREAKS,
            OK,
        ),
        (json!({"prefixItems": [{"type": "string"}]}), json!({"prefixItems": []}), BREAKS, BREAKS),
        (json!({"if": {"minimum": 1}}), json!({}), BREAKS, BREAKS),
        (json!({"description": "a"}), json!({"description": "b"}), OK, OK),
        (
            json!({"$defs": {"x": {"type": "string"}}, "$ref": "#/$defs/x"}),
            json!({"type": "string"}),
            OK,
            OK,
        ),
        (
            json!({"$defs": {"x": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/x"}}}),
            json!({"$defs": {"x": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/x"}}}),
            BREAKS,
            BREAKS,
        ),
    ];
    for (old, new, input, output) in cases {
        let told = side(&old, &new, Side::Input);
        assert_eq!(told.0, input, "arguments: {old} to {new}: {told:?}");
        let told = side(&old, &new, Side::Output);
        assert_eq!(told.0, output, "replies: {old} to {new}: {told:?}");
    }
}

#[test]
fn differences_name_their_place_and_the_breaking_ones_come_first() {
    let old = object(json!({"query": {"type": "string"}, "a/b": {"type": "number"}}), &["query"]);
    let new = object(
        json!({
            "query": {"type": "string", "description": "what to look for"},
            "a/b": {"type": "integer"},
            "region": {"type": "string"},
        }),
        &["query", "region"],
    );
    let (class, told) = side(&old, &new, Side::Input);
    assert_eq!(class, BREAKS);
    assert_eq!(
        told,
        [
            "input /properties/a~1b/type: type was number, is integer",
            "input /required: region is required now",
            "input /properties/query/description: description is another one",
            "input /properties/region: the property is new",
        ]
    );
    assert_eq!(side(&old, &new, Side::Input), side(&old, &new, Side::Input));
}

#[test]
fn what_cannot_be_compared_is_breaking() {
    let expected = part(&json!({}), &json!({}));
    let gone = ToolSeen { name: "search".to_owned(), ..ToolSeen::default() };
    assert_eq!(compare(&expected, &gone).1[0].what, "the tool is not there");
    let silent = ToolSeen { digest: "d".to_owned(), ..gone.clone() };
    assert_eq!(compare(&expected, &silent).0, BREAKS);
    let broken = ToolSeen { input_schema_json: "{".to_owned(), ..silent.clone() };
    let (class, changes) = compare(&expected, &broken);
    assert_eq!(class, BREAKS);
    assert!(changes[0].what.starts_with("it is no JSON"), "{changes:?}");
    let half = ToolSeen { input_schema_json: "{}".to_owned(), ..silent };
    assert_eq!(compare(&expected, &half).0, OK, "of replies the worker says nothing");
}

#[test]
fn at_most_so_many_differences_are_kept() {
    let names = |from: u32| -> Value {
        let properties = (from..from + 100).map(|n| (format!("p{n}"), json!({})));
        Value::Object(properties.collect())
    };
    let (class, told) = side(&object(names(0), &[]), &object(names(50), &[]), Side::Input);
    assert_eq!((class, told.len()), (BREAKS, limits::DRIFT_CHANGES));
}
