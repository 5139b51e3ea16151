//! Files beside the one that is read, which it names by paths relative to itself.

use std::path::Path;

use pinrail_proto::reason;

use super::FileError;
use super::reader::Reader;
use super::tree::Value;

/// Where they are, and how large one may be.
#[derive(Debug)]
pub(super) struct Files<'a> {
    pub(super) folder: &'a Path,
    /// Bytes.
    pub(super) most: usize,
}

impl Files<'_> {
    /// A file of text, that `key` of the table names on a line.
    pub(super) fn read(
        &self,
        table: &Reader<'_>,
        key: &str,
        path: &str,
        line: usize,
    ) -> Result<String, FileError> {
        let error = |rule: String| table.error(line, format!("{}: {path}: {rule}", table.key(key)));
        let full = self.folder.join(path);
        let size = std::fs::metadata(&full).map_err(|cause| error(cause.to_string()))?.len();
        if size > self.most as u64 {
            let mut error = error(format!("{size} bytes; at most {}", self.most));
            error.reason = reason::LIMIT_EXCEEDED.name;
            return Err(error);
        }
        std::fs::read_to_string(&full).map_err(|cause| error(cause.to_string()))
    }

    /// A schema as JSON text: the path of a JSON file, or a table. Empty when there is none.
    pub(super) fn schema(
        &self,
        table: &mut Reader<'_>,
        key: &'static str,
    ) -> Result<String, FileError> {
        let Some(node) = table.node(key) else { return Ok(String::new()) };
        let path = table.key(key);
        match &node.value {
            Value::Text(file) => {
                let text = self.read(table, key, file, node.line)?;
                let json: Result<serde_json::Value, _> = serde_json::from_str(&text);
                let rule = |error| format!("{path}: {file} is no JSON: {error}");
                Ok(json.map_err(|error| table.error(node.line, rule(error)))?.to_string())
            }
            Value::Table(_) => node.value.json().map(|json| json.to_string()).ok_or_else(|| {
                table.error(node.line, format!("{path}: holds what JSON cannot say"))
            }),
            Value::Integer(_)
            | Value::Decimal(_)
            | Value::Bool(_)
            | Value::Date(_)
            | Value::List(_) => {
                let kind = node.value.kind();
                let rule = format!("{path}: is {kind}, expected the path of a JSON Schema");
                Err(table.error(node.line, rule))
            }
        }
    }
}
