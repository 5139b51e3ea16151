//! The tools that a program really sees, for the cluster to compare with what the bundle says.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pinrail_proto::{limits, tool, v1};
use serde_json::Value;

use crate::worker::bundle::BundleView;

/// Tools as a program really sees them: what a server of the Model Context Protocol lists, say. A handle: what is said to one
/// of its clones is said to all, and goes to the cluster when the worker introduces itself and with the next heartbeat
/// after a change. Of a tool that is not mentioned the cluster assumes nothing.
#[derive(Debug, Clone, Default)]
pub struct ToolsSeen {
    inner: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// `None`: there is no such tool.
    tools: BTreeMap<String, Option<Schemas>>,
    /// Grows with each change.
    version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Schemas {
    input: String,
    /// Empty: nobody says.
    output: String,
}

impl ToolsSeen {
    /// Nothing is said of any tool.
    #[must_use]
    pub fn new() -> ToolsSeen {
        ToolsSeen::default()
    }

    /// The tool is there, with these JSON Schemas. A server that does not say what a tool gives: `None`.
    pub fn set(&self, tool: impl Into<String>, input: &Value, output: Option<&Value>) {
        let output = output.map(Value::to_string).unwrap_or_default();
        self.put(tool.into(), Some(Schemas { input: input.to_string(), output }));
    }

    /// The bundle names this tool, and it is not there.
    pub fn absent(&self, tool: impl Into<String>) {
        self.put(tool.into(), None);
    }

    fn put(&self, tool: String, schemas: Option<Schemas>) {
        let mut seen = self.inner.lock();
        if seen.tools.get(&tool) != Some(&schemas) {
            seen.tools.insert(tool, schemas);
            seen.version += 1;
        }
    }

    /// 0: nothing was ever said.
    pub(crate) fn version(&self) -> u64 {
        self.inner.lock().version
    }

    /// The digest of a tool's schemas as they are seen; `None` when nothing is said of it.
    pub(crate) fn digest(&self, tool: &str) -> Option<String> {
        let seen = self.inner.lock();
        seen.tools.get(tool)?.as_ref().map(Schemas::digest)
    }

    /// What an introduction says: digests.
    pub(crate) fn short(&self) -> Vec<v1::ToolSeen> {
        let short = |(name, schemas): (&String, &Option<Schemas>)| v1::ToolSeen {
            name: name.clone(),
            digest: schemas.as_ref().map(Schemas::digest).unwrap_or_default(),
            ..v1::ToolSeen::default()
        };
        self.inner.lock().tools.iter().take(limits::TOOLS_SEEN).map(short).collect()
    }

    /// What a heartbeat says: the same, with the schemas of those that differ from the bundle's as far as they fit.
    pub(crate) fn full(&self, bundle: &BundleView) -> Vec<v1::ToolSeen> {
        let mut all = self.short();
        let seen = self.inner.lock();
        let mut left = limits::MANIFEST_BYTES;
        for it in &mut all {
            let expected = bundle.checked_tool(&it.name).map(|tool| &tool.schema_digest);
            let Some(Some(schemas)) = seen.tools.get(&it.name) else { continue };
            let size = schemas.input.len() + schemas.output.len();
            let is_other = expected.is_some_and(|expected| *expected != it.digest);
            if is_other && size <= limits::TOOL_SCHEMA_BYTES.min(left) {
                left -= size;
                it.input_schema_json.clone_from(&schemas.input);
                it.output_schema_json.clone_from(&schemas.output);
            }
        }
        all
    }
}

impl Schemas {
    fn digest(&self) -> String {
        tool::schema_digest(&self.input, &self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bundle(input: &str) -> BundleView {
        let part = v1::ToolPart { input_schema_json: input.to_owned(), ..Default::default() };
        let manifest = v1::BundleManifest {
            tools: [("search".to_owned(), part)].into(),
            ..Default::default()
        };
        let bundle = v1::Bundle { manifest: Some(manifest), ..Default::default() };
        BundleView::new(bundle, 1_000).expect("its schemas are fine")
    }

    #[test]
    fn schemas_are_told_where_they_differ_and_a_change_has_a_version() {
        let seen = ToolsSeen::new();
        assert_eq!((seen.version(), seen.short()), (0, Vec::new()));
        seen.set("search", &json!({ "type": "object" }), None);
        seen.set("mail", &json!({}), None);
        seen.clone().set("search", &json!({ "type": "object" }), None);
        assert_eq!(seen.version(), 2, "the same again is no change");
        let same = seen.full(&bundle("{ \"type\": \"object\" }"));
        assert!(same.iter().all(|it| it.input_schema_json.is_empty()), "{same:?}");
        let other = seen.full(&bundle("{}"));
        assert_eq!(other[1].input_schema_json, "{\"type\":\"object\"}");
        assert_eq!(other[0].input_schema_json, "", "the bundle has no such tool");
        seen.absent("search");
        assert_eq!((seen.version(), seen.short()[1].digest.as_str()), (3, ""));
        assert_eq!(seen.digest("search"), None);
    }

    #[test]
    fn schemas_that_are_too_large_are_left_out() {
        let seen = ToolsSeen::new();
        let large = json!({ "description": "x".repeat(limits::TOOL_SCHEMA_BYTES) });
        seen.set("search", &large, None);
        let told = seen.full(&bundle("{}"));
        assert!(told[0].input_schema_json.is_empty() && !told[0].digest.is_empty());
    }
}
