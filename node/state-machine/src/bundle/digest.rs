//! Digests of a bundle: SHA-256 of each of the five parts and over all of them.
//!
//! The encoding is ours and fixed: every field is its length in eight big-endian bytes and its bytes, maps in
//! the order of their keys; each list begins with its name. A step is its protobuf encoding, which has no maps.
//! `message`, `labels` and `parent` are not part of it; entry and steps are. `docs/FILES.md` says the same.

use pinrail_proto::v1;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// Hashes fields so that no two lists of fields look alike.
pub(crate) struct Fields(Sha256);

impl Fields {
    pub(crate) fn new(part: &str) -> Self {
        let fields = Self(Sha256::new());
        fields.field(part.as_bytes())
    }

    pub(crate) fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn hex(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// SHA-256 of a text in lower-case hex.
pub(crate) fn of_text(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Whether a text is a SHA-256 in lower-case hex.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Digests of the five parts.
pub(crate) fn parts(manifest: &v1::BundleManifest) -> v1::PartDigests {
    let code = manifest.code.clone().unwrap_or_default();
    let mut prompts = Fields::new("prompts");
    for (name, prompt) in &manifest.prompts {
        prompts = prompts.field(name.as_bytes()).field(prompt.digest.as_bytes());
    }
    let mut models = Fields::new("models");
    for (name, model) in &manifest.models {
        models = models
            .field(name.as_bytes())
            .field(model.provider.as_bytes())
            .field(model.name.as_bytes())
            .field(model.snapshot.as_bytes())
            .field(model.parameters_json.as_bytes());
    }
    let mut indexes = Fields::new("indexes");
    for (name, index) in &manifest.indexes {
        indexes = indexes.field(name.as_bytes()).field(of_index(index).as_bytes());
    }
    let mut tools = Fields::new("tools");
    for (name, tool) in &manifest.tools {
        tools = tools
            .field(name.as_bytes())
            .field(tool.version.as_bytes())
            .field(with_stub(tool).as_bytes());
    }
    let code = Fields::new("code").field(code.git_commit.as_bytes()).field(code.image.as_bytes());
    v1::PartDigests {
        code: code.hex(),
        prompts: prompts.hex(),
        models: models.hex(),
        indexes: indexes.hex(),
        tools: tools.hex(),
    }
}

/// Digest of a bundle: over those of its parts, its entry and its steps.
pub(crate) fn whole(manifest: &v1::BundleManifest, parts: &v1::PartDigests) -> String {
    let mut fields = Fields::new("bundle");
    for part in [&parts.code, &parts.prompts, &parts.models, &parts.indexes, &parts.tools] {
        fields = fields.field(part.as_bytes());
    }
    fields = fields.field(manifest.entry.as_bytes());
    for (name, step) in &manifest.steps {
        fields = fields.field(name.as_bytes()).field(&step.encode_to_vec());
    }
    fields.hex()
}

/// Parts with a version of their own: (part, name, version, digest of the content).
pub(crate) fn versioned(
    manifest: &v1::BundleManifest,
) -> Vec<(&'static str, String, String, String)> {
    let indexes = manifest
        .indexes
        .iter()
        .map(|(name, index)| ("index", name.clone(), index.version.clone(), of_index(index)));
    let tools = manifest
        .tools
        .iter()
        .map(|(name, tool)| ("tool", name.clone(), tool.version.clone(), of_tool(tool)));
    indexes.chain(tools).collect()
}

fn of_index(index: &v1::IndexPart) -> String {
    Fields::new("index")
        .field(index.version.as_bytes())
        .field(index.embedding_model.as_bytes())
        .hex()
}

pub(crate) fn of_step(step: &v1::StepPolicy) -> String {
    hex::encode(Sha256::digest(step.encode_to_vec()))
}

pub(crate) fn of_tool(tool: &v1::ToolPart) -> String {
    Fields::new("tool")
        .field(tool.input_schema_json.as_bytes())
        .field(tool.output_schema_json.as_bytes())
        .field(&i32::from(tool.side_effects()).to_be_bytes())
        .hex()
}

/// A bundle with another stub is another bundle; the tool is the same.
fn with_stub(tool: &v1::ToolPart) -> String {
    let digest = of_tool(tool);
    if tool.stub_json.is_empty() {
        return digest;
    }
    Fields::new("stubbed").field(digest.as_bytes()).field(tool.stub_json.as_bytes()).hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(pairs: &[(&str, &str)]) -> String {
        let part = |(name, digest): &(&str, &str)| {
            let prompt = v1::PromptPart { digest: (*digest).to_owned(), text: String::new() };
            ((*name).to_owned(), prompt)
        };
        let prompts = pairs.iter().map(part).collect();
        parts(&v1::BundleManifest { prompts, ..v1::BundleManifest::default() }).prompts
    }

    #[test]
    fn no_two_lists_of_fields_look_alike() {
        assert_ne!(prompts(&[("a", "bc")]), prompts(&[("ab", "c")]));
        assert_ne!(prompts(&[("a", "b"), ("c", "d")]), prompts(&[("a", "bcd")]));
        assert_eq!(prompts(&[("a", "b"), ("c", "d")]), prompts(&[("c", "d"), ("a", "b")]));
        assert_ne!(Fields::new("prompts").hex(), Fields::new("models").hex());
    }

    #[test]
    fn what_is_said_about_a_bundle_is_not_part_of_it() {
        let digest = |manifest: &v1::BundleManifest| whole(manifest, &parts(manifest));
        let plain =
            v1::BundleManifest { entry: "main".to_owned(), ..v1::BundleManifest::default() };
        let told = v1::BundleManifest {
            message: "cite sources".to_owned(),
            parent: "v1".to_owned(),
            labels: [("team".to_owned(), "support".to_owned())].into(),
            ..plain.clone()
        };
        assert_eq!(digest(&plain), digest(&told));
        let steps = [("main".to_owned(), v1::StepPolicy::default())].into();
        assert_ne!(digest(&plain), digest(&v1::BundleManifest { steps, ..plain.clone() }));
        assert_ne!(
            digest(&plain),
            digest(&v1::BundleManifest { entry: "plan".to_owned(), ..plain.clone() })
        );
    }

    #[test]
    fn a_digest_is_64_digits_of_lower_case_hex() {
        assert!(is_digest(&of_text("")));
        for bad in ["", "ab", &of_text("").to_uppercase(), &of_text("")[1..]] {
            assert!(!is_digest(bad), "{bad}");
        }
    }
}
