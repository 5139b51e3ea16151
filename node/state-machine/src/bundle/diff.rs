//! What differs between two bundles, part by part.

use std::collections::BTreeMap;

use pinrail_proto::v1::{self, ChangeKind, PartChange};

use super::digest;

/// Differences in the order code, prompts, models, indexes, tools, entry, steps; names in order within a part.
pub(crate) fn diff(before: &v1::BundleManifest, after: &v1::BundleManifest) -> Vec<PartChange> {
    let mut changes = Vec::new();
    let single = |value: String| BTreeMap::from([(String::new(), value)]);
    compare(&mut changes, "code", &single(code(before)), &single(code(after)));
    compare(&mut changes, "prompts", &prompts(before), &prompts(after));
    compare(&mut changes, "models", &models(before), &models(after));
    compare(&mut changes, "indexes", &indexes(before), &indexes(after));
    compare(&mut changes, "tools", &tools(before), &tools(after));
    compare(&mut changes, "entry", &single(before.entry.clone()), &single(after.entry.clone()));
    compare(&mut changes, "steps", &steps(before), &steps(after));
    changes
}

fn compare(
    changes: &mut Vec<PartChange>,
    part: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let kind = match (before.get(name), after.get(name)) {
            (None, Some(_)) => ChangeKind::Added,
            (Some(_), None) => ChangeKind::Removed,
            (Some(old), Some(new)) if old != new => ChangeKind::Changed,
            (Some(_), Some(_)) | (None, None) => continue,
        };
        changes.push(PartChange {
            part: part.to_owned(),
            name: name.clone(),
            kind: kind.into(),
            before: before.get(name).cloned().unwrap_or_default(),
            after: after.get(name).cloned().unwrap_or_default(),
        });
    }
}

fn code(manifest: &v1::BundleManifest) -> String {
    super::code(manifest)
}

fn prompts(manifest: &v1::BundleManifest) -> BTreeMap<String, String> {
    manifest.prompts.iter().map(|(name, prompt)| (name.clone(), prompt.digest.clone())).collect()
}

fn models(manifest: &v1::BundleManifest) -> BTreeMap<String, String> {
    let text = |m: &v1::ModelPart| {
        let parameters = if m.parameters_json.is_empty() { "{}" } else { &m.parameters_json };
        format!("{}/{}@{} {parameters}", m.provider, m.name, m.snapshot)
    };
    manifest.models.iter().map(|(name, model)| (name.clone(), text(model))).collect()
}

fn indexes(manifest: &v1::BundleManifest) -> BTreeMap<String, String> {
    let text = |i: &v1::IndexPart| format!("{} ({})", i.version, i.embedding_model);
    manifest.indexes.iter().map(|(name, index)| (name.clone(), text(index))).collect()
}

fn tools(manifest: &v1::BundleManifest) -> BTreeMap<String, String> {
    let text = |t: &v1::ToolPart| {
        let stub = if t.stub_json.is_empty() { "" } else { " stub " };
        format!("{} schema {}{stub}{}", t.version, &digest::of_tool(t)[..12], t.stub_json)
    };
    manifest.tools.iter().map(|(name, tool)| (name.clone(), text(tool))).collect()
}

fn steps(manifest: &v1::BundleManifest) -> BTreeMap<String, String> {
    let text = |s: &v1::StepPolicy| digest::of_step(s)[..12].to_owned();
    manifest.steps.iter().map(|(name, step)| (name.clone(), text(step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_come_part_by_part_and_say_what_was() {
        let model = |snapshot: &str| v1::ModelPart {
            provider: "acme".to_owned(),
            name: "large".to_owned(),
            snapshot: snapshot.to_owned(),
            ..v1::ModelPart::default()
        };
        let before = v1::BundleManifest {
            entry: "main".to_owned(),
            models: [("default".to_owned(), model("1")), ("judge".to_owned(), model("1"))].into(),
            ..v1::BundleManifest::default()
        };
        let after = v1::BundleManifest {
            entry: "plan".to_owned(),
            models: [("default".to_owned(), model("2")), ("rank".to_owned(), model("1"))].into(),
            ..v1::BundleManifest::default()
        };
        let told: Vec<_> = diff(&before, &after)
            .into_iter()
            .map(|c| (c.part.clone(), c.name.clone(), c.kind()))
            .collect();
        let change = |part: &str, name: &str, kind| (part.to_owned(), name.to_owned(), kind);
        assert_eq!(
            told,
            [
                change("models", "default", ChangeKind::Changed),
                change("models", "judge", ChangeKind::Removed),
                change("models", "rank", ChangeKind::Added),
                change("entry", "", ChangeKind::Changed),
            ]
        );
        assert!(diff(&after, &after).is_empty());
    }
}
