//! How two versions of a tool's schemas differ, and whether what was right by the bundle's still is.
//!
//! A bundle sends arguments that are right by its input schema, so a tool that takes more is compatible and one that takes
//! less is breaking; it reads replies by its output schema, so a tool that gives less is compatible and one that gives more
//! is breaking. What cannot be told is breaking.

use std::collections::BTreeSet;

use pinrail_proto::limits;
use pinrail_proto::v1::{DriftChange, DriftClass, ToolPart, ToolSeen};
use serde_json::{Map, Value};

use super::inline::inline;

/// What a difference does to the values that a schema allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Fewer are right.
    Narrower,
    /// More are right.
    Wider,
    /// Others are right, or it cannot be told.
    Other,
    /// A property that was promised is gone.
    Gone,
    /// The same are right.
    Words,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }

    fn class(self, effect: Effect) -> DriftClass {
        match (self, effect) {
            (_, Effect::Words)
            | (Self::Input, Effect::Wider)
            | (Self::Output, Effect::Narrower) => DriftClass::Compatible,
            (_, Effect::Other | Effect::Gone)
            | (Self::Input, Effect::Narrower)
            | (Self::Output, Effect::Wider) => DriftClass::Breaking,
        }
    }
}

/// The class of what a worker sees in place of a tool, and the differences: breaking ones first, then by their place.
pub(super) fn compare(expected: &ToolPart, seen: &ToolSeen) -> (DriftClass, Vec<DriftChange>) {
    if seen.digest.is_empty() {
        return breaking("the tool is not there");
    }
    if seen.input_schema_json.is_empty() && seen.output_schema_json.is_empty() {
        let (most, what) = (limits::TOOL_SCHEMA_BYTES >> 10, "and cannot be compared");
        return breaking(&format!("its schemas are missing or larger than {most} KiB, {what}"));
    }
    let mut changes = Vec::new();
    let sides = [
        (Side::Input, &expected.input_schema_json, &seen.input_schema_json),
        (Side::Output, &expected.output_schema_json, &seen.output_schema_json),
    ];
    // A side that the worker does not know it says nothing of.
    for (side, expected, seen) in sides.into_iter().filter(|(_, _, seen)| !seen.is_empty()) {
        let mut walk = Walk { side, changes: Vec::new() };
        walk.texts(expected, seen);
        changes.append(&mut walk.changes);
    }
    if changes.is_empty() {
        changes.push(change("", DriftClass::Compatible, "it is written in another way"));
    }
    changes.sort_by(|a, b| {
        (a.class() != DriftClass::Breaking, &a.path, &a.what).cmp(&(
            b.class() != DriftClass::Breaking,
            &b.path,
            &b.what,
        ))
    });
    let class = changes.first().map_or(DriftClass::Compatible, DriftChange::class);
    changes.truncate(limits::DRIFT_CHANGES);
    (class, changes)
}

fn breaking(what: &str) -> (DriftClass, Vec<DriftChange>) {
    (DriftClass::Breaking, vec![change("", DriftClass::Breaking, what)])
}

fn change(path: &str, class: DriftClass, what: &str) -> DriftChange {
    DriftChange { path: path.to_owned(), class: class.into(), what: what.to_owned() }
}

/// Goes through both schemas of one side at once.
struct Walk {
    side: Side,
    changes: Vec<DriftChange>,
}

/// Both schemas at one place.
struct Pair<'a> {
    path: String,
    old: &'a Map<String, Value>,
    new: &'a Map<String, Value>,
}

impl Pair<'_> {
    fn both(&self, key: &str) -> (Option<&Value>, Option<&Value>) {
        (self.old.get(key), self.new.get(key))
    }

    fn at(&self, key: &str) -> String {
        // As a JSON pointer writes names.
        format!("{}/{}", self.path, key.replace('~', "~0").replace('/', "~1"))
    }
}

impl Walk {
    fn say(&mut self, path: &str, effect: Effect, what: impl AsRef<str>) {
        let path = format!("{} {path}", self.side.name());
        self.changes.push(change(path.trim_end(), self.side.class(effect), what.as_ref()));
    }

    fn texts(&mut self, old: &str, new: &str) {
        let parse = |text: &str| match text {
            // Nothing is said, so everything is right.
            "" => Ok(Value::Bool(true)),
            text => serde_json::from_str::<Value>(text).map_err(|error| error.to_string()),
        };
        let (old, new) = match (parse(old), parse(new)) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(error), _) => {
                return self.say("", Effect::Other, format!("the bundle's is no JSON: {error}"));
            }
            (_, Err(error)) => {
                return self.say("", Effect::Other, format!("it is no JSON: {error}"));
            }
        };
        match (inline(&old), inline(&new)) {
            (Some(old), Some(new)) => self.schemas("", &old, &new),
            (_, _) => self.say("", Effect::Other, "it is too large to be compared"),
        }
    }

    fn schemas(&mut self, path: &str, old: &Value, new: &Value) {
        if old == new {
            return;
        }
        let empty = Map::new();
        let fields = |it: &Value| match it {
            Value::Bool(true) => Some(empty.clone()),
            Value::Object(fields) => Some(fields.clone()),
            Value::Bool(false)
            | Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => None,
        };
        match (fields(old), fields(new)) {
            (Some(old), Some(new)) => {
                self.objects(&Pair { path: path.to_owned(), old: &old, new: &new })
            }
            (Some(_), None) => self.say(path, Effect::Narrower, "nothing is allowed here any more"),
            (None, Some(_)) => self.say(path, Effect::Wider, "something is allowed here now"),
            (None, None) => self.say(path, Effect::Other, "it is another one"),
        }
    }

    fn objects(&mut self, it: &Pair<'_>) {
        let keys: BTreeSet<&String> = it.old.keys().chain(it.new.keys()).collect();
        for key in keys {
            if it.old.get(key) != it.new.get(key) {
                self.keyword(it, key);
            }
        }
    }

    fn keyword(&mut self, it: &Pair<'_>, key: &str) {
        let path = it.at(key);
        match key {
            "type" => self.types(it),
            "enum" | "const" => self.values(it, key),
            "required" => self.required(it),
            "properties" => self.properties(it),
            "items"
            | "additionalProperties"
            | "unevaluatedProperties"
            | "unevaluatedItems"
            | "additionalItems"
            | "propertyNames" => {
                let any = Value::Bool(true);
                let (old, new) = it.both(key);
                self.schemas(&path, old.unwrap_or(&any), new.unwrap_or(&any));
            }
            "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties"
            | "minContains" => self.bound(it, key, false),
            "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties"
            | "maxContains" => self.bound(it, key, true),
            "anyOf" | "oneOf" | "allOf" => self.alternatives(it, key),
            "prefixItems" => self.prefix(it),
            "uniqueItems" => {
                let (old, new) = it.both(key);
                let is = |it: Option<&Value>| it.and_then(Value::as_bool).unwrap_or(false);
                match (is(old), is(new)) {
                    (false, true) => self.say(&path, Effect::Narrower, "items must differ now"),
                    (true, false) => self.say(&path, Effect::Wider, "items may be alike now"),
                    (true, true) | (false, false) => {}
                }
            }
            "pattern" | "format" | "multipleOf" | "not" | "if" | "then" | "else" | "contains"
            | "patternProperties" | "dependentRequired" | "dependentSchemas" | "dependencies"
            | "$ref" | "$dynamicRef" => self.rule(it, key),
            // Words about it, and what no validator knows.
            _ => self.say(&path, Effect::Words, format!("{key} is another one")),
        }
    }

    /// A rule that is there or not; two different ones cannot be told apart.
    fn rule(&mut self, it: &Pair<'_>, key: &str) {
        let (path, alone) = (it.at(key), !matches!(key, "if" | "then" | "else"));
        match it.both(key) {
            (None, Some(new)) if alone => {
                self.say(&path, Effect::Narrower, format!("{key} is new: {}", shown(new)));
            }
            (Some(_), None) if alone => self.say(&path, Effect::Wider, format!("{key} is gone")),
            (_, _) => self.say(&path, Effect::Other, format!("{key} is another one")),
        }
    }

    fn types(&mut self, it: &Pair<'_>) {
        let (old, new) = it.both("type");
        let what = format!("type was {}, is {}", told(old), told(new));
        let effect = match (types(old), types(new)) {
            (old, new) if old == new => return,
            (Some(old), Some(new)) if covers(&new, &old) => Effect::Wider,
            (Some(old), Some(new)) if covers(&old, &new) => Effect::Narrower,
            (Some(_), Some(_)) => Effect::Other,
            (None, _) => Effect::Narrower,
            (_, None) => Effect::Wider,
        };
        self.say(&it.at("type"), effect, what);
    }

    /// `enum`; `const` is one of a single value.
    fn values(&mut self, it: &Pair<'_>, key: &str) {
        let list = |value: Option<&Value>| -> Option<Vec<Value>> {
            match (value?, key) {
                (Value::Array(values), "enum") => Some(values.clone()),
                (value, _) => Some(vec![value.clone()]),
            }
        };
        let (old, new) = it.both(key);
        let path = it.at(key);
        match (list(old), list(new)) {
            (Some(old), Some(new)) => {
                let gone: Vec<_> = old.iter().filter(|value| !new.contains(value)).collect();
                let more: Vec<_> = new.iter().filter(|value| !old.contains(value)).collect();
                for value in gone {
                    self.say(
                        &path,
                        Effect::Narrower,
                        format!("{} is no value any more", shown(value)),
                    );
                }
                for value in more {
                    self.say(&path, Effect::Wider, format!("{} is a value now", shown(value)));
                }
            }
            (None, Some(_)) => {
                self.say(&path, Effect::Narrower, "only certain values are right now")
            }
            (Some(_), None) => self.say(&path, Effect::Wider, "any value is right now"),
            (None, None) => {}
        }
    }

    fn required(&mut self, it: &Pair<'_>) {
        let (old, new) = it.both("required");
        let (old, new) = (names(old), names(new));
        for name in new.difference(&old) {
            // Whether one that is gone was required is not of interest.
            self.say(&it.at("required"), Effect::Narrower, format!("{name} is required now"));
        }
        for name in old.difference(&new) {
            self.say(&it.at("required"), Effect::Wider, format!("{name} is required no more"));
        }
    }

    fn properties(&mut self, it: &Pair<'_>) {
        let empty = Map::new();
        let fields = |it: Option<&Value>| it.and_then(Value::as_object).unwrap_or(&empty).clone();
        let (old, new) = it.both("properties");
        let (old, new) = (fields(old), fields(new));
        let properties = it.at("properties");
        let closed = it.old.get("additionalProperties") == Some(&Value::Bool(false));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let path = format!("{properties}/{}", name.replace('~', "~0").replace('/', "~1"));
            match (old.get(name), new.get(name)) {
                (Some(old), Some(new)) => self.schemas(&path, old, new),
                (Some(_), None) => self.say(&path, Effect::Gone, "the property is gone"),
                (None, Some(_)) if closed => self.say(&path, Effect::Wider, "the property is new"),
                (None, Some(_)) => self.say(&path, Effect::Words, "the property is new"),
                (None, None) => {}
            }
        }
    }

    /// `upper`: a larger one allows more.
    fn bound(&mut self, it: &Pair<'_>, key: &str, upper: bool) {
        let (old, new) = it.both(key);
        let what = format!("{key} was {}, is {}", told(old), told(new));
        let number = |it: Option<&Value>| it.and_then(Value::as_f64);
        let effect = match (number(old), number(new)) {
            (Some(old), Some(new)) if (new > old) == upper => Effect::Wider,
            (Some(_), Some(_)) | (None, Some(_)) => Effect::Narrower,
            (Some(_), None) => Effect::Wider,
            (None, None) => Effect::Other,
        };
        self.say(&it.at(key), effect, what);
    }

    fn alternatives(&mut self, it: &Pair<'_>, key: &str) {
        let path = it.at(key);
        let (old, new) = it.both(key);
        let list = |it: Option<&Value>| it.and_then(Value::as_array).cloned();
        let (old, new) = match (list(old), list(new)) {
            (Some(old), Some(new)) => (old, new),
            (None, Some(_)) => return self.say(&path, Effect::Narrower, format!("{key} is new")),
            (Some(_), None) => return self.say(&path, Effect::Wider, format!("{key} is gone")),
            (None, None) => return self.say(&path, Effect::Other, format!("{key} is another one")),
        };
        let gone = old.iter().filter(|one| !new.contains(one)).count();
        let more = new.iter().filter(|one| !old.contains(one)).count();
        // More to choose from allows more; more that must all hold allows less.
        let (less, plus) = match key {
            "allOf" => (Effect::Wider, Effect::Narrower),
            _ => (Effect::Narrower, Effect::Wider),
        };
        match (gone, more) {
            (0, 0) => {}
            (_, 0) => self.say(&path, less, format!("{gone} of {key} are gone")),
            (0, _) => self.say(&path, plus, format!("{more} of {key} are new")),
            // The same number, changed in their places.
            (_, _) if old.len() == new.len() => {
                for (index, (old, new)) in old.iter().zip(&new).enumerate() {
                    self.schemas(&format!("{path}/{index}"), old, new);
                }
            }
            (_, _) => self.say(&path, Effect::Other, format!("{key} is another one")),
        }
    }

    fn prefix(&mut self, it: &Pair<'_>) {
        let path = it.at("prefixItems");
        let list = |it: Option<&Value>| it.and_then(Value::as_array).cloned().unwrap_or_default();
        let (old, new) = it.both("prefixItems");
        let (old, new) = (list(old), list(new));
        if old.len() != new.len() {
            return self.say(&path, Effect::Other, "prefixItems has another length");
        }
        for (index, (old, new)) in old.iter().zip(&new).enumerate() {
            self.schemas(&format!("{path}/{index}"), old, new);
        }
    }
}

/// `None`: any type.
fn types(value: Option<&Value>) -> Option<BTreeSet<String>> {
    match value? {
        Value::String(one) => Some(BTreeSet::from([one.clone()])),
        Value::Array(list) => {
            Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Whether every value of one of these types is of one of those. Each integer is a number.
fn covers(all: &BTreeSet<String>, some: &BTreeSet<String>) -> bool {
    some.iter().all(|it| all.contains(it) || (it == "integer" && all.contains("number")))
}

fn names(value: Option<&Value>) -> BTreeSet<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn told(value: Option<&Value>) -> String {
    value.map_or_else(|| "not said".to_owned(), shown)
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
