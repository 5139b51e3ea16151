//! Whether the model that a provider names is the one that the bundle pins. Providers write one snapshot in several ways,
//! `gpt-5-mini-2025-08-07` or `2025-08-07`, and some only repeat the alias that they were asked for, which says nothing.

use std::collections::BTreeMap;

use pinrail_proto::v1::ModelPart;

/// The model that is meant when none is named.
pub(super) const DEFAULT: &str = "default";

/// What the bundle says, when something else served. `None`: that one served, or nobody can tell.
pub(super) fn differs(
    models: &BTreeMap<String, ModelPart>,
    name: &str,
    served: &str,
) -> Option<String> {
    let name = if name.is_empty() { DEFAULT } else { name };
    // Some report the provider's name for a model in place of the bundle's.
    let named = models.get(name).or_else(|| models.values().find(|part| part.name == name));
    if let Some(part) = named {
        return (!fits(part, served)).then(|| told(part));
    }
    let default = models.get(DEFAULT)?;
    (!models.values().any(|part| fits(part, served))).then(|| told(default))
}

fn told(part: &ModelPart) -> String {
    if part.snapshot_is_name {
        part.name.clone()
    } else {
        format!("{}@{}", part.name, part.snapshot)
    }
}

fn fits(part: &ModelPart, served: &str) -> bool {
    let [served, name, snapshot] =
        [served, &part.name, part.snapshot.trim()].map(str::to_ascii_lowercase);
    if served == snapshot || served == name {
        return true;
    }
    if part.snapshot_is_name {
        return ends_with(&served, &name);
    }
    holds(&served, &name) && holds(&served, &snapshot)
}

/// Behind `/` or `:`, as routers and registries name models: `openai/gpt-4-0613`.
fn ends_with(text: &str, word: &str) -> bool {
    text.strip_suffix(word).is_some_and(|before| before.ends_with(['/', ':']))
}

/// Whether a word is in a text and does not go on there as a longer one.
fn holds(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(word).any(|(at, _)| {
        let (before, behind) = (&text[..at], &text[at + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(behind.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, snapshot: &str) -> ModelPart {
        ModelPart {
            name: name.to_owned(),
            snapshot: snapshot.to_owned(),
            snapshot_is_name: name == snapshot,
            ..ModelPart::default()
        }
    }

    #[test]
    fn one_snapshot_is_written_in_several_ways() {
        for (name, snapshot, served, is_it) in [
            ("claude-sonnet-4-5", "20250929", "claude-sonnet-4-5-20250929", true),
            ("claude-sonnet-4-5", "20250929", "claude-sonnet-4-5@20250929", true),
            ("claude-sonnet-4-5", "20250929", "anthropic.claude-sonnet-4-5-20250929-v1:0", true),
            ("claude-sonnet-4-5", "20250929", "20250929", true),
            ("claude-sonnet-4-5", "20250929", "claude-sonnet-4-5", true),
            ("claude-sonnet-4-5", "20250929", "claude-sonnet-4-5-20251101", false),
            ("claude-sonnet-4-5", "20250929", "claude-haiku-4-5-20250929", false),
            ("gpt-5-mini", "2025-08-07", "GPT-5-mini-2025-08-07", true),
            ("gpt-5-mini", "2025-08-07", "gpt-5-mini-2025-08-071", false),
            ("gpt-4-0613", "gpt-4-0613", "openai/gpt-4-0613", true),
            ("gpt-4", "gpt-4", "gpt-4-turbo", false),
        ] {
            assert_eq!(fits(&part(name, snapshot), served), is_it, "{name} {snapshot} {served}");
        }
    }

    #[test]
    fn a_model_is_found_by_either_name_and_one_of_no_name_may_be_any() {
        let models: BTreeMap<String, ModelPart> =
            [("default", part("large", "1")), ("judge", part("small", "7"))]
                .map(|(name, part)| (name.to_owned(), part))
                .into();
        assert_eq!(differs(&models, "", "large-2").as_deref(), Some("large@1"));
        assert_eq!(differs(&models, "judge", "small-7"), None);
        assert_eq!(differs(&models, "small", "small-8").as_deref(), Some("small@7"));
        assert_eq!(differs(&models, "other", "small-7"), None);
        assert_eq!(differs(&models, "other", "tiny-7").as_deref(), Some("large@1"));
        assert_eq!(differs(&BTreeMap::new(), "", "large-2"), None);
    }
}
