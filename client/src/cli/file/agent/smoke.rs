//! `[gates.smoke]` and its cases: inputs and schemas may be files.

use pinrail_proto::policy::range::SMOKE_WITHIN;
use pinrail_proto::{id, limits, v1};

use super::super::FileError;
use super::super::files::Files;
use super::super::reader::Reader;
use super::gates;

pub(super) fn read(table: &mut Reader<'_>, files: &Files<'_>) -> Result<v1::SmokeGate, FileError> {
    let mut cases: Vec<v1::SmokeCase> = Vec::new();
    for mut inner in table.list("cases")? {
        let case = case(&mut inner, files)?;
        if cases.iter().any(|before| before.name == case.name) {
            let rule = format!("{}: {} is there twice", inner.key("name"), case.name);
            return Err(inner.error(inner.line(), rule));
        }
        if cases.len() == limits::SMOKE_CASES {
            let rule = format!("gates.smoke.cases: at most {}", limits::SMOKE_CASES);
            return Err(inner.error(inner.line(), rule));
        }
        inner.finish()?;
        cases.push(case);
    }
    Ok(v1::SmokeGate { mode: gates::mode(table)?, timeout: gates::timeout(table)?, cases })
}

fn case(table: &mut Reader<'_>, files: &Files<'_>) -> Result<v1::SmokeCase, FileError> {
    let name = table.required("name")?;
    let entry = table.text("entry")?;
    let names = [("name", Some(&name)), ("entry", entry.as_ref())];
    for (key, (name, line)) in names.into_iter().filter_map(|(key, it)| Some((key, it?))) {
        id::check_name("it", name)
            .map_err(|error| table.error(*line, format!("{}: {error}", table.key(key))))?;
    }
    let (schema, contains, matches) = table.section("expect", |table| expect(table, files))?;
    Ok(v1::SmokeCase {
        name: name.0,
        input: input(table, files)?,
        within: table.duration("within", SMOKE_WITHIN)?,
        schema,
        contains,
        matches,
        entry: entry.map_or_else(String::new, |(name, _)| name),
    })
}

/// A value, which is JSON then, or a file of JSON or text.
fn input(table: &mut Reader<'_>, files: &Files<'_>) -> Result<Option<v1::Payload>, FileError> {
    let json = |data: Vec<u8>| v1::Payload {
        content_type: "application/json".to_owned(),
        data: data.into(),
    };
    let value = table.node("input");
    match (value, table.text("input_file")?) {
        (None, None) => Ok(None),
        (Some(node), None) => {
            let rule = format!("{}: holds what JSON cannot say", table.key("input"));
            let value = node.value.json().ok_or_else(|| table.error(node.line, rule))?;
            Ok(Some(json(value.to_string().into_bytes())))
        }
        (None, Some((path, line))) => {
            let text = files.read(table, "input_file", &path, line)?;
            if !path.ends_with(".json") {
                let content_type = "text/plain; charset=utf-8".to_owned();
                return Ok(Some(v1::Payload { content_type, data: text.into() }));
            }
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
            let value = parsed.map_err(|error| {
                let rule = format!("{}: {path} is no JSON: {error}", table.key("input_file"));
                table.error(line, rule)
            })?;
            Ok(Some(json(value.to_string().into_bytes())))
        }
        (Some(_), Some((_, line))) => {
            let key = table.key("input_file");
            Err(table.error(line, format!("{key}: input and input_file exclude each other")))
        }
    }
}

/// Schema, texts and expression.
type Expected = (String, Vec<String>, String);

fn expect(table: &mut Reader<'_>, files: &Files<'_>) -> Result<Expected, FileError> {
    Ok((schema(table, files)?, contains(table)?, matches(table)?))
}

fn schema(table: &mut Reader<'_>, files: &Files<'_>) -> Result<String, FileError> {
    let line = table.line_of("schema");
    let schema = files.schema(table, "schema")?;
    let key = table.key("schema");
    if schema.len() > limits::SMOKE_SCHEMA_BYTES {
        let most = limits::SMOKE_SCHEMA_BYTES;
        let rule = format!("{key}: {} bytes; at most {most}", schema.len());
        return Err(table.error(line, rule));
    }
    if !schema.is_empty() {
        let parsed = serde_json::from_str(&schema).unwrap_or_default();
        jsonschema::validator_for(&parsed)
            .map_err(|error| table.error(line, format!("{key}: is no JSON Schema: {error}")))?;
    }
    Ok(schema)
}

fn contains(table: &mut Reader<'_>) -> Result<Vec<String>, FileError> {
    let texts = table.texts("contains")?.unwrap_or_default();
    let key = table.key("contains");
    if texts.len() > limits::SMOKE_CONTAINS {
        let rule = format!("{key}: {} texts; at most {}", texts.len(), limits::SMOKE_CONTAINS);
        return Err(table.error(table.line(), rule));
    }
    let mut contains = Vec::with_capacity(texts.len());
    for (text, line) in texts {
        if text.is_empty() || text.len() > limits::TEXT_BYTES {
            let rule = format!("{key}: a text has 1 to {} bytes", limits::TEXT_BYTES);
            return Err(table.error(line, rule));
        }
        contains.push(text);
    }
    Ok(contains)
}

fn matches(table: &mut Reader<'_>) -> Result<String, FileError> {
    let Some((text, line)) = table.text("matches")? else { return Ok(String::new()) };
    let key = table.key("matches");
    if text.len() > limits::TEXT_BYTES {
        let rule = format!("{key}: {} bytes; at most {}", text.len(), limits::TEXT_BYTES);
        return Err(table.error(line, rule));
    }
    let expression = regex::RegexBuilder::new(&text).size_limit(limits::SMOKE_REGEX_BYTES).build();
    expression.map_err(|error| {
        let error = error.to_string().replace('\n', " ");
        table.error(line, format!("{key}: is no regular expression: {error}"))
    })?;
    Ok(text)
}
