//! What a manifest may hold (`docs/FILES.md`): one code, pinned models, bounded everything.

use pinrail_proto::reason;
use pinrail_proto::{id, limits, v1};
use prost::Message as _;

use crate::agent::policy;
use crate::outcome::{Stop, reject};

use super::digest;

/// Names that a provider may move to another model at any time.
const FLOATING: [&str; 6] = ["latest", "stable", "current", "default", "auto", "preview"];

/// Fills in what is unset and checks every rule.
///
/// # Errors
/// `MODEL_NOT_PINNED`, `INVALID_MANIFEST`, `INVALID_ID` or `LIMIT_EXCEEDED`; the message names the place.
pub(crate) fn complete(mut manifest: v1::BundleManifest) -> Result<v1::BundleManifest, Stop> {
    let size = manifest.encoded_len();
    if size > limits::MANIFEST_BYTES {
        return Err(policy::too_large("manifest bytes", size, limits::MANIFEST_BYTES));
    }
    if manifest.entry.is_empty() {
        "main".clone_into(&mut manifest.entry);
    }
    name("entry step", &manifest.entry)?;
    if manifest.message.len() > limits::TEXT_BYTES {
        return Err(policy::too_large("message bytes", manifest.message.len(), limits::TEXT_BYTES));
    }
    policy::check_labels(&manifest.labels)?;
    if !manifest.parent.is_empty() {
        name("parent", &manifest.parent)?;
    }
    check_code(manifest.code.as_ref())?;
    for (prompt_name, prompt) in &mut manifest.prompts {
        complete_prompt(prompt_name, prompt)?;
    }
    check_models(&manifest)?;
    for (index_name, index) in &manifest.indexes {
        name("index", index_name)?;
        filled(&format!("indexes.{index_name}.version"), &index.version)?;
        filled(&format!("indexes.{index_name}.embedding_model"), &index.embedding_model)?;
    }
    for (tool_name, tool) in &manifest.tools {
        name("tool", tool_name)?;
        filled(&format!("tools.{tool_name}.version"), &tool.version)?;
        if tool.side_effects() == v1::SideEffects::Unspecified {
            let message = format!(
                "tools.{tool_name}.side_effects is missing; allowed: read_only, idempotent, destructive"
            );
            return Err(reject(reason::INVALID_MANIFEST, message));
        }
    }
    for (step_name, step) in &manifest.steps {
        name("step", step_name)?;
        policy::check_steps(&format!("steps.{step_name}"), step)?;
    }
    Ok(manifest)
}

fn check_code(code: Option<&v1::CodePart>) -> Result<(), Stop> {
    let code = code.cloned().unwrap_or_default();
    let invalid = |message: &str| Err(reject(reason::INVALID_MANIFEST, message));
    match (code.git_commit.is_empty(), code.image.is_empty()) {
        (true, true) => invalid("code.git_commit or code.image is required"),
        (false, false) => invalid("code has a git_commit and an image; exactly one is allowed"),
        (false, true) => Ok(()),
        (true, false) if code.image.contains("@sha256:") => Ok(()),
        (true, false) => invalid("code.image must name a digest: registry/name@sha256:…"),
    }
}

fn complete_prompt(prompt_name: &str, prompt: &mut v1::PromptPart) -> Result<(), Stop> {
    name("prompt", prompt_name)?;
    if !prompt.text.is_empty() {
        let digest = digest::of_text(&prompt.text);
        if !prompt.digest.is_empty() && prompt.digest != digest {
            let message = format!("prompts.{prompt_name}.digest is not that of its text");
            return Err(reject(reason::INVALID_MANIFEST, message));
        }
        prompt.digest = digest;
    }
    if !prompt.digest.is_empty() && !digest::is_digest(&prompt.digest) {
        let message = format!("prompts.{prompt_name}.digest is no SHA-256 in lower-case hex");
        return Err(reject(reason::INVALID_MANIFEST, message));
    }
    filled(&format!("prompts.{prompt_name}: text or digest"), &prompt.digest)
}

fn check_models(manifest: &v1::BundleManifest) -> Result<(), Stop> {
    if !manifest.models.contains_key("default") {
        return Err(reject(reason::INVALID_MANIFEST, "models.default is required"));
    }
    for (model_name, model) in &manifest.models {
        name("model", model_name)?;
        filled(&format!("models.{model_name}.provider"), &model.provider)?;
        filled(&format!("models.{model_name}.name"), &model.name)?;
        let snapshot = model.snapshot.trim();
        let floating = FLOATING.iter().any(|alias| snapshot.eq_ignore_ascii_case(alias));
        let is_name = snapshot.eq_ignore_ascii_case(&model.name) && !model.snapshot_is_name;
        if snapshot.is_empty() || floating || is_name {
            let message = format!(
                "models.{model_name}.snapshot is {snapshot:?}, which does not name one fixed thing"
            );
            return Err(reject(reason::MODEL_NOT_PINNED, message).with("model", model_name));
        }
    }
    Ok(())
}

fn name(what: &'static str, value: &str) -> Result<(), Stop> {
    id::check_name(what, value).map_err(|error| reject(reason::INVALID_ID, error.to_string()))
}

fn filled(key: &str, value: &str) -> Result<(), Stop> {
    if value.is_empty() {
        return Err(reject(reason::INVALID_MANIFEST, format!("{key} is missing")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(snapshot: &str) -> v1::BundleManifest {
        let model = v1::ModelPart {
            provider: "p".into(),
            name: "m".into(),
            snapshot: snapshot.into(),
            ..v1::ModelPart::default()
        };
        v1::BundleManifest {
            code: Some(v1::CodePart { git_commit: "c".into(), image: String::new() }),
            models: [("default".to_owned(), model)].into(),
            ..v1::BundleManifest::default()
        }
    }

    #[test]
    fn floating_models_are_refused() {
        for floating in ["", " ", "latest", "LATEST", "stable", "preview", "m", "M"] {
            let Err(Stop::Rejected(rejection)) = complete(manifest(floating)) else {
                panic!("{floating:?} was accepted");
            };
            assert_eq!(rejection.reason, "MODEL_NOT_PINNED");
        }
        assert_eq!(complete(manifest("2025-09-29")).unwrap().entry, "main");
        assert!(complete(manifest("gpt-4o-preview-2025")).is_ok());
    }

    #[test]
    fn a_snapshot_may_be_the_name_when_the_provider_says_so() {
        let mut bundle = manifest("m");
        bundle.models.get_mut("default").unwrap().snapshot_is_name = true;
        assert!(complete(bundle).is_ok());
    }

    #[test]
    fn exactly_one_code_is_required() {
        let mut bundle = manifest("1");
        bundle.code = None;
        assert!(complete(bundle.clone()).is_err());
        bundle.code = Some(v1::CodePart { git_commit: "c".into(), image: "i@sha256:0".into() });
        assert!(complete(bundle).is_err());
    }
}
