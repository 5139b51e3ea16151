//! A schema without references into itself, so that two of them can be compared place by place.

use serde_json::{Map, Value};

/// Values that one schema may come to; what has more is not compared.
const MOST: usize = 50_000;

/// Puts what a local reference (`#/$defs/…`) leads to in its place, but not inside itself: a schema that refers to itself
/// is compared one turn deep. `None`: it becomes too large.
pub(super) fn inline(schema: &Value) -> Option<Value> {
    let mut left = MOST;
    let mut value = resolve(schema, schema, &mut Vec::new(), &mut left)?;
    if let Value::Object(fields) = &mut value {
        // They count where they are referred to.
        fields.remove("$defs");
        fields.remove("definitions");
    }
    Some(value)
}

fn resolve(
    value: &Value,
    root: &Value,
    inside: &mut Vec<String>,
    left: &mut usize,
) -> Option<Value> {
    *left = left.checked_sub(1)?;
    match value {
        Value::Object(fields) => object(fields, root, inside, left),
        Value::Array(items) => {
            let items = items.iter().map(|item| resolve(item, root, inside, left));
            Some(Value::Array(items.collect::<Option<_>>()?))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(value.clone()),
    }
}

fn object(
    fields: &Map<String, Value>,
    root: &Value,
    inside: &mut Vec<String>,
    left: &mut usize,
) -> Option<Value> {
    let reference = fields.get("$ref").and_then(Value::as_str);
    let target = reference
        .filter(|it| !inside.iter().any(|outer| outer == it))
        .and_then(|it| Some((it, root.pointer(it.strip_prefix('#')?)?)));
    let mut whole = Map::new();
    if let Some((reference, target)) = target {
        inside.push(reference.to_owned());
        let resolved = resolve(target, root, inside, left);
        inside.pop();
        match resolved? {
            Value::Object(fields) => whole = fields,
            other => return Some(other),
        }
    }
    for (key, value) in fields.iter().filter(|(key, _)| target.is_none() || *key != "$ref") {
        // Inside itself it is the definitions' own matter.
        let is_definitions = matches!(key.as_str(), "$defs" | "definitions");
        if !is_definitions {
            whole.insert(key.clone(), resolve(value, root, inside, left)?);
        }
    }
    simplify(&mut whole);
    Some(Value::Object(whole))
}

/// `{"anyOf": [{"type": "string"}, {"type": "null"}]}` says no more than `{"type": ["string", "null"]}`.
fn simplify(fields: &mut Map<String, Value>) {
    if fields.contains_key("type") {
        return;
    }
    let alternatives = fields.get("anyOf").and_then(Value::as_array);
    let type_of = |it: &Value| {
        let fields = it.as_object()?;
        let only_type = fields.keys().all(|key| matches!(key.as_str(), "type" | "title"));
        fields.get("type").filter(|_| only_type).filter(|it| it.is_string()).cloned()
    };
    let types = alternatives.and_then(|all| all.iter().map(type_of).collect::<Option<Vec<_>>>());
    if let Some(types) = types {
        fields.remove("anyOf");
        fields.insert("type".to_owned(), Value::Array(types));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_followed_and_those_into_themselves_once() {
        let schema = json!({
            "$defs": {
                "place": {"type": "string"},
                "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}},
            },
            "properties": {
                "at": {"$ref": "#/$defs/place", "description": "where"},
                "tree": {"$ref": "#/$defs/tree"},
            },
        });
        let tree = json!({"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}});
        assert_eq!(
            inline(&schema),
            Some(json!({"properties": {
                "at": {"type": "string", "description": "where"},
                "tree": tree,
            }}))
        );
    }

    #[test]
    fn alternatives_of_types_alone_are_a_list_of_types() {
        let schema = json!({"anyOf": [{"type": "string"}, {"type": "null"}]});
        assert_eq!(inline(&schema), Some(json!({"type": ["string", "null"]})));
    }

    #[test]
    fn a_schema_that_explodes_is_given_up() {
        let level = |n: u32| {
            let next = json!({"$ref": format!("#/$defs/l{}", n + 1)});
            (format!("l{n}"), json!({"allOf": [next.clone(), next.clone(), next.clone(), next]}))
        };
        let mut defs: Map<String, Value> = (0..12).map(level).collect();
        defs.insert("l12".to_owned(), json!({"type": "string"}));
        assert_eq!(inline(&json!({"$defs": defs, "$ref": "#/$defs/l0"})), None);
    }
}
