//! JSON Schema of what `super::of` writes: for the OpenAPI document.

use std::collections::BTreeMap;

use prost::Name;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value as Json, json};

use super::{POOL, word};

/// Schemas of messages by their names without package, as `components.schemas` wants them.
#[derive(Debug, Clone, Default)]
pub struct Schemas(pub BTreeMap<String, Json>);

/// A reference to a message's schema, which is put into `schemas` with everything that it refers to.
#[must_use]
pub fn schema<M: Name>(schemas: &mut Schemas) -> Json {
    let descriptor =
        POOL.get_message_by_name(&M::full_name()).expect("a generated message has a descriptor");
    message(&descriptor, schemas)
}

fn message(descriptor: &MessageDescriptor, schemas: &mut Schemas) -> Json {
    match descriptor.full_name() {
        "pinrail.v1.Payload" => {
            return json!({ "description": "JSON as it is, text as a string, the rest as {\"base64\": …}" });
        }
        "google.protobuf.Timestamp" => return json!({ "type": "string", "format": "date-time" }),
        "google.protobuf.Duration" => {
            return json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$" });
        }
        _ => {}
    }
    let name = descriptor.name().to_owned();
    if !schemas.0.contains_key(&name) {
        // First, so that a message that holds itself ends.
        schemas.0.insert(name.clone(), Json::Null);
        let object = object(descriptor, schemas);
        schemas.0.insert(name.clone(), object);
    }
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn object(descriptor: &MessageDescriptor, schemas: &mut Schemas) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in descriptor.fields() {
        properties.insert(field.name().to_owned(), of_field(&field, schemas));
        let may_be_absent = field.supports_presence()
            || (matches!(field.kind(), Kind::Enum(_)) && !field.is_list());
        if !may_be_absent {
            required.push(field.name().to_owned());
        }
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn of_field(field: &FieldDescriptor, schemas: &mut Schemas) -> Json {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let values = of_kind(&entry.map_entry_value_field().kind(), schemas);
        return json!({ "type": "object", "additionalProperties": values });
    }
    let one = of_kind(&field.kind(), schemas);
    if field.is_list() { json!({ "type": "array", "items": one }) } else { one }
}

fn of_kind(kind: &Kind, schemas: &mut Schemas) -> Json {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Double | Kind::Float => json!({ "type": "number" }),
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64 => json!({ "type": "integer" }),
        Kind::String => json!({ "type": "string" }),
        Kind::Bytes => {
            json!({ "type": "object", "properties": { "base64": { "type": "string" } } })
        }
        Kind::Enum(descriptor) => enumeration(descriptor),
        Kind::Message(descriptor) => message(descriptor, schemas),
    }
}

fn enumeration(descriptor: &EnumDescriptor) -> Json {
    let set = descriptor.values().filter(|value| value.number() != 0);
    let words: Vec<String> = set.map(|value| word::of(descriptor, value.name())).collect();
    json!({ "type": "string", "enum": words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn a_schema_has_the_fields_that_its_json_has() {
        let mut schemas = Schemas::default();
        let run = schema::<v1::Run>(&mut schemas);
        assert_eq!(run, json!({ "$ref": "#/components/schemas/Run" }));
        let run = &schemas.0["Run"];
        assert_eq!(run["properties"]["started_at"]["format"], "date-time");
        let states = run["properties"]["state"]["enum"].as_array().expect("a list of words");
        assert!(states.contains(&json!("running")), "{states:?}");
        assert!(schemas.0.contains_key("Pin") && !schemas.0.values().any(Json::is_null));
        let Json::Object(shown) = crate::json::of(&v1::Run::default()) else { panic!("an object") };
        for required in run["required"].as_array().expect("a list") {
            assert!(shown.contains_key(required.as_str().expect("a name")), "{required}");
        }
    }
}
