//! What one worker says of the tools that it sees, beside what its bundle says, and whether it gets steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use pinrail_proto::v1::{DriftAction, DriftClass, DriftState, ToolSeen};
use pinrail_proto::{limits, tool, v1};
use pinrail_state_machine::query::KnownSchemas;

/// What is seen of a tool that is not there.
const ABSENT: &str = "absent";

/// The digests that a tool of the bundle may have: of both schemas, or of one where a worker knows only that.
type Digests = [String; 3];

/// The tools of one worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tools {
    expects: Arc<BTreeMap<String, Digests>>,
    /// Of tools of the bundle only; others are no business of it.
    seen: BTreeMap<String, ToolSeen>,
    /// A heartbeat told of the schemas; a hello has digests only.
    told: bool,
    /// Something unknown holds the worker back: the policy blocks.
    strict: bool,
    blocked_by: Option<String>,
}

/// One tool, as a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) tool: String,
    pub(super) seen: String,
    pub(super) differs: bool,
    pub(super) told: bool,
}

/// The digest, or a word for none.
pub(super) fn seen_as(it: &ToolSeen) -> String {
    if it.digest.is_empty() { ABSENT.to_owned() } else { it.digest.clone() }
}

impl Tools {
    /// Of a worker that introduces itself.
    pub(crate) fn of(
        manifest: &v1::BundleManifest,
        seen: &[ToolSeen],
        known: &KnownSchemas,
    ) -> Self {
        if seen.is_empty() && manifest.tools.is_empty() {
            return Self::default();
        }
        let digests = |part: &v1::ToolPart| {
            let (input, output) = (&part.input_schema_json, &part.output_schema_json);
            [(input.as_str(), output.as_str()), (input, ""), ("", output)]
                .map(|(input, output)| tool::schema_digest(input, output))
        };
        let expects = manifest.tools.iter().map(|(name, part)| (name.clone(), digests(part)));
        let mut tools = Self { expects: Arc::new(expects.collect()), ..Self::default() };
        tools.take_in(seen);
        tools.judge(known);
        tools
    }

    fn take_in(&mut self, seen: &[ToolSeen]) {
        let of_bundle = |it: &&ToolSeen| self.expects.contains_key(&it.name);
        let bounded = seen.iter().take(limits::TOOLS_SEEN).filter(of_bundle);
        self.seen = bounded.map(|it| (it.name.clone(), within_limits(it))).collect();
    }

    /// A heartbeat says all of it anew, with the schemas that differ.
    pub(crate) fn told(&mut self, seen: &[ToolSeen]) {
        let before = std::mem::take(&mut self.seen);
        self.take_in(seen);
        self.told = true;
        let is_new =
            |it: &&ToolSeen| before.get(&it.name).is_none_or(|old| old.digest != it.digest);
        let new = self.seen.values().filter(|it| self.differs(it)).find(is_new);
        if let Some(new) = new.filter(|_| self.strict) {
            self.blocked_by = Some(not_known(&new.name));
        }
    }

    fn differs(&self, it: &ToolSeen) -> bool {
        self.expects.get(&it.name).is_some_and(|digests| !digests.contains(&it.digest))
    }

    /// Whether the worker said anything of its tools.
    pub(crate) fn any(&self) -> bool {
        !self.seen.is_empty()
    }

    pub(crate) fn blocked_by(&self) -> Option<&str> {
        self.blocked_by.as_deref()
    }

    pub(super) fn seen(&self, tool: &str) -> Option<&ToolSeen> {
        self.seen.get(tool)
    }

    pub(super) fn sights(&self) -> impl Iterator<Item = Sight> + '_ {
        self.seen.values().map(|it| Sight {
            tool: it.name.clone(),
            seen: seen_as(it),
            differs: self.differs(it),
            told: self.told,
        })
    }

    /// As the API shows them.
    pub(crate) fn described(&self) -> Vec<ToolSeen> {
        let short = |it: &ToolSeen| ToolSeen {
            name: it.name.clone(),
            digest: it.digest.clone(),
            ..ToolSeen::default()
        };
        self.seen.values().map(short).collect()
    }

    /// Says anew whether the worker is blocked. True: it was otherwise before.
    pub(crate) fn judge(&mut self, known: &KnownSchemas) -> bool {
        self.strict = [known.breaking, known.compatible].contains(&DriftAction::Block);
        let differing = self.seen.values().filter(|it| self.differs(it));
        let blocked_by = differing.filter_map(|it| self.objection(it, known)).next();
        let changed = blocked_by.is_some() != self.blocked_by.is_some();
        self.blocked_by = blocked_by;
        changed
    }

    fn objection(&self, it: &ToolSeen, known: &KnownSchemas) -> Option<String> {
        let place = (it.name.clone(), seen_as(it));
        let Some((class, state)) = known.seen.get(&place) else {
            return self.strict.then(|| not_known(&it.name));
        };
        let (action, word) = match class {
            DriftClass::Compatible => (known.compatible, "compatible"),
            DriftClass::Breaking | DriftClass::Unspecified => (known.breaking, "breaking"),
        };
        let stands = *state != DriftState::Accepted && action == DriftAction::Block;
        stands.then(|| format!("{word} drift of {}", it.name))
    }
}

fn not_known(tool: &str) -> String {
    format!("{tool} is not what the bundle says, and how is not known yet")
}

/// Without schemas that are too large: then it is not known how they differ.
fn within_limits(it: &ToolSeen) -> ToolSeen {
    let size = it.input_schema_json.len() + it.output_schema_json.len();
    let (name, digest) = (it.name.clone(), it.digest.clone());
    if size > limits::TOOL_SCHEMA_BYTES {
        return ToolSeen { name, digest, ..ToolSeen::default() };
    }
    it.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"object"}"#;

    fn manifest() -> v1::BundleManifest {
        let part = v1::ToolPart {
            input_schema_json: SCHEMA.to_owned(),
            output_schema_json: "{}".to_owned(),
            ..v1::ToolPart::default()
        };
        v1::BundleManifest { tools: [("search".to_owned(), part)].into(), ..Default::default() }
    }

    fn seen(input: &str, output: &str) -> ToolSeen {
        ToolSeen {
            name: "search".to_owned(),
            digest: tool::schema_digest(input, output),
            input_schema_json: input.to_owned(),
            output_schema_json: output.to_owned(),
        }
    }

    fn policy(breaking: DriftAction) -> KnownSchemas {
        KnownSchemas { breaking, compatible: DriftAction::Accept, ..KnownSchemas::default() }
    }

    #[test]
    fn the_same_schemas_written_otherwise_are_the_same_and_one_of_them_is_enough() {
        let known = policy(DriftAction::Block);
        for same in [seen("{ \"type\": \"object\" }", "{}"), seen(SCHEMA, ""), seen("", "{}")] {
            let tools = Tools::of(&manifest(), &[same], &known);
            assert!(tools.sights().all(|sight| !sight.differs));
            assert_eq!(tools.blocked_by(), None);
        }
        let other = ToolSeen { name: "mail".to_owned(), ..ToolSeen::default() };
        assert!(!Tools::of(&manifest(), &[other], &known).any(), "it is no tool of the bundle");
    }

    #[test]
    fn what_is_not_known_yet_holds_back_only_where_the_policy_blocks() {
        let other = seen(r#"{"type":"string"}"#, "{}");
        let alert =
            Tools::of(&manifest(), std::slice::from_ref(&other), &policy(DriftAction::Alert));
        assert_eq!(alert.blocked_by(), None);
        let mut block =
            Tools::of(&manifest(), std::slice::from_ref(&other), &policy(DriftAction::Block));
        assert!(block.blocked_by().is_some_and(|why| why.contains("not known yet")));

        let place = ("search".to_owned(), other.digest.clone());
        let mut known = policy(DriftAction::Block);
        known.seen.insert(place.clone(), (DriftClass::Breaking, DriftState::Open));
        assert!(!block.judge(&known), "it is blocked as before");
        assert_eq!(block.blocked_by(), Some("breaking drift of search"));
        known.seen.insert(place.clone(), (DriftClass::Breaking, DriftState::Accepted));
        assert!(block.judge(&known), "it is free");
        known.seen.insert(place, (DriftClass::Compatible, DriftState::Open));
        assert!(!block.judge(&known), "the policy lives with it");
    }

    #[test]
    fn a_tool_that_changes_while_the_worker_works_holds_it_back_at_once() {
        let mut tools = Tools::of(&manifest(), &[seen(SCHEMA, "{}")], &policy(DriftAction::Block));
        tools.told(&[seen(SCHEMA, "{}")]);
        assert_eq!(tools.blocked_by(), None);
        tools.told(&[ToolSeen { name: "search".to_owned(), ..ToolSeen::default() }]);
        assert!(tools.blocked_by().is_some());
        let sight = tools.sights().next().expect("one");
        assert_eq!((sight.seen.as_str(), sight.differs, sight.told), ("absent", true, true));
    }
}
