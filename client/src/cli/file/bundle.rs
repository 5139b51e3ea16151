//! bundle.toml: one release of an agent, with the files that it names.
//!
//! `${NAME}` in a text is taken from the environment (`$${` stands for `${`), `--set key=value` changes a key before
//! anything is judged, and paths are relative to the file.

use std::collections::BTreeMap;
use std::path::Path;

use pinrail_proto::{id, limits, reason, v1};

use super::FileError;
use super::files::Files;
use super::reader::Reader;
use super::steps::{self, Whose};
use super::tree::{self, Table};

/// Texts that name no fixed thing, in any case.
const FLOATING: &[&str] = &["", "latest", "stable", "current", "default", "auto", "preview"];

/// Where a file's values come from beside itself.
pub struct Surroundings<'a> {
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// `key=value` of each `--set`, in order.
    pub set: &'a [String],
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("set", &self.set).finish_non_exhaustive()
    }
}

/// Reads a manifest from a file and the files beside it.
///
/// # Errors
/// `INVALID_MANIFEST` or `MODEL_NOT_PINNED` with file, line and key; `LIMIT_EXCEEDED` for a file that is too large.
pub fn load(path: &Path, around: &Surroundings<'_>) -> Result<v1::BundleManifest, FileError> {
    let text = super::read(path, &reason::INVALID_MANIFEST)?;
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    parse(&path.display().to_string(), &text, &folder, around)
}

/// Reads a manifest from text; `file` names it in errors, paths in it are relative to `folder`.
///
/// # Errors
/// See [`load`].
pub fn parse(
    file: &str,
    text: &str,
    folder: &Path,
    around: &Surroundings<'_>,
) -> Result<v1::BundleManifest, FileError> {
    let broken = |line: usize, message: String| FileError {
        reason: reason::INVALID_MANIFEST.name,
        place: if line == 0 { "--set".to_owned() } else { format!("{file}:{line}") },
        message,
    };
    let mut table = tree::parse(text).map_err(|error| broken(error.line, error.message))?;
    for pair in around.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            broken(0, format!("{pair:?} is not key=value, e.g. code.git_commit=0123abc"))
        })?;
        tree::set(&mut table, key.trim(), tree::parse_value(value))
            .map_err(|rule| broken(0, format!("{key}: {rule}")))?;
    }
    for (key, node) in &mut table {
        tree::map_texts(node, &mut |text, line| {
            expand(text, around.variable).map_err(|rule| broken(line, format!("{key}: {rule}")))
        })?;
    }
    manifest(file, folder, table)
}

fn manifest(file: &str, folder: &Path, table: Table) -> Result<v1::BundleManifest, FileError> {
    let mut top = Reader::new(file, &reason::INVALID_MANIFEST, table);
    let files = Files { folder, most: limits::MANIFEST_BYTES };
    let entry = top.text("entry")?;
    if let Some((name, line)) = &entry {
        check(&top, *line, "entry", name)?;
    }
    let manifest = v1::BundleManifest {
        entry: entry.map_or_else(|| "main".to_owned(), |(name, _)| name),
        code: Some(code(&mut top)?),
        prompts: prompts(&mut top, &files)?,
        models: models(&mut top)?,
        indexes: indexes(&mut top)?,
        tools: tools(&mut top, &files)?,
        steps: declared(&mut top)?,
        message: top.text("message")?.map_or_else(String::new, |(text, _)| text),
        labels: top.labels("labels")?,
        parent: top.text("parent")?.map_or_else(String::new, |(text, _)| text),
    };
    top.finish()?;
    Ok(manifest)
}

fn code(top: &mut Reader<'_>) -> Result<v1::CodePart, FileError> {
    let missing = "code: a bundle needs [code] with git_commit or image";
    let mut table = top.table("code")?.ok_or_else(|| top.error(1, missing))?;
    let git_commit = table.text("git_commit")?;
    let image = table.text("image")?;
    let line = table.line();
    let code = match (git_commit, image) {
        (Some((git_commit, line)), None) => {
            if git_commit.is_empty() {
                return Err(table.error(line, "code.git_commit: is empty"));
            }
            v1::CodePart { git_commit, image: String::new() }
        }
        (None, Some((image, line))) => {
            if !image.contains("@sha256:") {
                let rule = "an image is named by its digest: registry/name@sha256:…";
                return Err(table.error(line, format!("code.image: {rule}")));
            }
            v1::CodePart { git_commit: String::new(), image }
        }
        (Some(_), Some(_)) => {
            return Err(table.error(line, "code: git_commit and image exclude each other"));
        }
        (None, None) => return Err(table.error(line, missing)),
    };
    table.finish()?;
    Ok(code)
}

fn models(top: &mut Reader<'_>) -> Result<BTreeMap<String, v1::ModelPart>, FileError> {
    let mut models = BTreeMap::new();
    for (name, table) in short_and_named(top, "model", "models")? {
        models.insert(name.clone(), model(table)?);
    }
    if !models.contains_key("default") {
        let rule = "model: a bundle needs [model] (short for [models.default])";
        return Err(top.error(1, rule));
    }
    Ok(models)
}

/// `[model]` and `[models.NAME]`; the short form is the one named `default`.
fn short_and_named<'f>(
    top: &mut Reader<'f>,
    short: &'static str,
    long: &'static str,
) -> Result<Vec<(String, Reader<'f>)>, FileError> {
    let default = top.table(short)?;
    let mut all = top.tables(long)?;
    for (name, table) in &all {
        check(table, table.line(), long, name)?;
    }
    if let Some(default) = default {
        if all.iter().any(|(name, _)| name == "default") {
            let rule = format!("{short}: is short for {long}.default, which is there too");
            return Err(default.error(default.line(), rule));
        }
        all.push(("default".to_owned(), default));
    }
    Ok(all)
}

fn model(mut table: Reader<'_>) -> Result<v1::ModelPart, FileError> {
    let provider = table.required("provider")?.0;
    let name = table.required("name")?.0;
    let snapshot_is_name = table.bool("snapshot_is_name")?.unwrap_or(false);
    let (snapshot, line) = table.text("snapshot")?.unwrap_or((String::new(), table.line()));
    if let Some(rule) = floating(&snapshot, &name, snapshot_is_name) {
        let mut error = table.error(line, format!("{}: {rule}", table.key("snapshot")));
        error.reason = reason::MODEL_NOT_PINNED.name;
        return Err(error);
    }
    let parameters_json = match table.node("parameters") {
        None => String::new(),
        Some(node) => {
            let object = node.value.json().filter(serde_json::Value::is_object);
            let rule = format!("{}: is not a table of JSON values", table.key("parameters"));
            object.ok_or_else(|| table.error(node.line, rule))?.to_string()
        }
    };
    table.finish()?;
    Ok(v1::ModelPart { provider, name, snapshot, snapshot_is_name, parameters_json })
}

/// Why a snapshot names no fixed thing, if it does not.
fn floating(snapshot: &str, name: &str, snapshot_is_name: bool) -> Option<String> {
    let lower = snapshot.trim().to_lowercase();
    if lower.is_empty() {
        return Some("is empty; name one fixed thing: a date, a digest, a version".to_owned());
    }
    if FLOATING.contains(&lower.as_str()) {
        return Some(format!("{snapshot:?} is a floating alias; name one fixed thing"));
    }
    let same = lower == name.trim().to_lowercase();
    (same && !snapshot_is_name).then(|| {
        format!("{snapshot:?} is the model's name; set snapshot_is_name = true if it is fixed")
    })
}

fn indexes(top: &mut Reader<'_>) -> Result<BTreeMap<String, v1::IndexPart>, FileError> {
    let mut indexes = BTreeMap::new();
    for (name, mut table) in short_and_named(top, "index", "indexes")? {
        let version = table.required("version")?.0;
        let embedding_model = table.required("embedding_model")?.0;
        table.finish()?;
        indexes.insert(name, v1::IndexPart { version, embedding_model });
    }
    Ok(indexes)
}

fn prompts(
    top: &mut Reader<'_>,
    files: &Files<'_>,
) -> Result<BTreeMap<String, v1::PromptPart>, FileError> {
    let mut prompts = BTreeMap::new();
    for (name, mut table) in top.tables("prompts")? {
        check(&table, table.line(), "prompts", &name)?;
        let given = [table.text("file")?, table.text("text")?, table.text("digest")?];
        let prompt = match given {
            [Some((path, line)), None, None] => {
                let text = files.read(&table, "file", &path, line)?;
                v1::PromptPart { digest: String::new(), text }
            }
            [None, Some((text, _)), None] => v1::PromptPart { digest: String::new(), text },
            [None, None, Some((digest, line))] => {
                if digest.len() != 64 || hex::decode(&digest).is_err() {
                    let rule = "is no SHA-256 in lower-case hex";
                    return Err(table.error(line, format!("{}: {rule}", table.key("digest"))));
                }
                v1::PromptPart { digest: digest.to_lowercase(), text: String::new() }
            }
            [_, _, _] => {
                let rule = format!("prompts.{name}: exactly one of file, text, digest is needed");
                return Err(table.error(table.line(), rule));
            }
        };
        table.finish()?;
        prompts.insert(name, prompt);
    }
    Ok(prompts)
}

fn tools(
    top: &mut Reader<'_>,
    files: &Files<'_>,
) -> Result<BTreeMap<String, v1::ToolPart>, FileError> {
    let classes = [
        ("read_only", v1::SideEffects::ReadOnly),
        ("idempotent", v1::SideEffects::Idempotent),
        ("destructive", v1::SideEffects::Destructive),
    ];
    let mut tools = BTreeMap::new();
    for mut table in top.list("tools")? {
        let line = table.line();
        let name = table.required("name")?.0;
        check(&table, line, "tools", &name)?;
        let version = table.required("version")?.0;
        let class = table.word("side_effects", &classes)?.ok_or_else(|| {
            let rule = "is missing: read_only, idempotent or destructive";
            table.error(line, format!("{}: {rule}", table.key("side_effects")))
        })?;
        let tool = v1::ToolPart {
            version,
            input_schema_json: files.schema(&mut table, "input_schema")?,
            output_schema_json: files.schema(&mut table, "output_schema")?,
            side_effects: class.into(),
        };
        if tools.contains_key(&name) {
            return Err(table.error(line, format!("tools: {name} is there twice")));
        }
        table.finish()?;
        tools.insert(name, tool);
    }
    Ok(tools)
}

fn declared(top: &mut Reader<'_>) -> Result<BTreeMap<String, v1::StepPolicy>, FileError> {
    let mut declared = BTreeMap::new();
    for (name, table) in top.tables("steps")? {
        check(&table, table.line(), "steps", &name)?;
        declared.insert(name, steps::read(table, Whose::Bundle)?);
    }
    Ok(declared)
}

fn check(table: &Reader<'_>, line: usize, what: &'static str, name: &str) -> Result<(), FileError> {
    id::check_name(what, name).map_err(|error| table.error(line, error.to_string()))
}

/// Puts variables in. `$${` stands for `${`.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or_else(|| format!("{text:?}: a ${{ is not closed"))?;
        let name = &inner[..end];
        out.push_str(&variable(name).ok_or_else(|| {
            format!("${{{name}}} is not set in the environment; set it or use --set")
        })?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests;
