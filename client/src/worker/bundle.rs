//! The bundle that a worker serves, as handlers see it: models, prompts, indexes, and tools with compiled schemas.

use std::collections::BTreeMap;

use jsonschema::Validator;
use pinrail_proto::tool::schema_digest;
use pinrail_proto::v1;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Name of the model, index and entry that are meant when none is named.
pub const DEFAULT: &str = "default";

/// The bundle of a step. It never changes while the worker runs.
#[derive(Debug)]
pub struct BundleView {
    bundle: v1::Bundle,
    manifest: v1::BundleManifest,
    model: v1::ModelPart,
    tools: BTreeMap<String, Tool>,
    /// Share of the replies of tools that are checked, in thousandths.
    sample_permille: u32,
}

/// A tool with its schemas.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) side_effects: v1::SideEffects,
    /// As the bundle has them; see [`pinrail_proto::tool::schema_digest`].
    pub(crate) schema_digest: String,
    pub(crate) input: Option<Validator>,
    pub(crate) output: Option<Validator>,
    /// Answers a call that must not be made.
    pub(crate) stub: Option<serde_json::Value>,
}

impl BundleView {
    pub(crate) fn new(bundle: v1::Bundle, sample_permille: u32) -> Result<BundleView> {
        let manifest = bundle.manifest.clone().unwrap_or_default();
        let model = manifest.models.get(DEFAULT).cloned().unwrap_or_default();
        let mut tools = BTreeMap::new();
        for (name, part) in &manifest.tools {
            tools.insert(name.clone(), Tool::new(name, part)?);
        }
        Ok(BundleView { bundle, manifest, model, tools, sample_permille })
    }

    /// Its id: the release tag.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.bundle.bundle_id
    }

    /// SHA-256 over its five parts.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.bundle.digest
    }

    /// Everything that it says.
    #[must_use]
    pub fn manifest(&self) -> &v1::BundleManifest {
        &self.manifest
    }

    /// The model `default`.
    #[must_use]
    pub fn model(&self) -> &v1::ModelPart {
        &self.model
    }

    /// Another model, like `judge`.
    #[must_use]
    pub fn model_named(&self, name: &str) -> Option<&v1::ModelPart> {
        self.manifest.models.get(name)
    }

    /// A retrieval index.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<&v1::IndexPart> {
        self.manifest.indexes.get(name)
    }

    /// A prompt; its text is there when the bundle was created with it.
    #[must_use]
    pub fn prompt(&self, name: &str) -> Option<&v1::PromptPart> {
        self.manifest.prompts.get(name)
    }

    /// A tool.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&v1::ToolPart> {
        self.manifest.tools.get(name)
    }

    /// Whether the reply to a call is one of those that are checked: by its key, so that it is the same in every attempt.
    pub(crate) fn samples(&self, key: &str) -> bool {
        let digest = Sha256::digest(key.as_bytes());
        let first = digest.iter().take(4).fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
        first % 1_000 < self.sample_permille
    }

    pub(crate) fn checked_tool(&self, name: &str) -> Option<&Tool> {
        self.tools.get(name)
    }
}

impl Tool {
    fn new(name: &str, part: &v1::ToolPart) -> Result<Tool> {
        let (input, output) = (&part.input_schema_json, &part.output_schema_json);
        Ok(Tool {
            side_effects: part.side_effects(),
            schema_digest: schema_digest(input, output),
            input: compile(name, "input", input)?,
            output: compile(name, "output", output)?,
            stub: stub(name, &part.stub_json)?,
        })
    }

    /// Whether calling it in a run that serves no user would do something.
    pub(crate) fn has_effects(&self) -> bool {
        match self.side_effects {
            v1::SideEffects::ReadOnly => false,
            v1::SideEffects::Idempotent
            | v1::SideEffects::Destructive
            | v1::SideEffects::Unspecified => true,
        }
    }

    /// The class as the usage of a run names it.
    pub(crate) fn class(&self) -> &'static str {
        match self.side_effects {
            v1::SideEffects::ReadOnly => "read_only",
            v1::SideEffects::Idempotent => "idempotent",
            v1::SideEffects::Destructive | v1::SideEffects::Unspecified => "destructive",
        }
    }
}

fn stub(tool: &str, text: &str) -> Result<Option<serde_json::Value>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |error| Error::invalid(format!("stub of tool {tool}: {error}"));
    serde_json::from_str(text).map(Some).map_err(wrong)
}

fn compile(tool: &str, which: &str, schema: &str) -> Result<Option<Validator>> {
    if schema.is_empty() {
        return Ok(None);
    }
    let wrong = |error: String| Error::invalid(format!("{which} schema of tool {tool}: {error}"));
    let schema = serde_json::from_str(schema).map_err(|error| wrong(error.to_string()))?;
    jsonschema::validator_for(&schema).map(Some).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_replies_that_are_checked_is_about_what_is_asked() {
        let view = |permille| BundleView::new(v1::Bundle::default(), permille).expect("it is fine");
        let checked =
            |view: &BundleView| (0..2_000).filter(|n| view.samples(&format!("key-{n}"))).count();
        assert_eq!((checked(&view(0)), checked(&view(1_000))), (0, 2_000));
        assert!((350..450).contains(&checked(&view(200))));
    }
}
