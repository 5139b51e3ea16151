//! Stages of a release by the names that a policy uses.

/// Those that `release.hold_before` may name: quarantine begins with the switch, and recycle waits for blockers only.
pub const HELD: [&str; 6] = ["prepare", "smoke", "evals", "shadow", "canary", "switch"];

/// Those that a hook may gate: the hook answers 2xx before the stage passes.
pub const GATED: [&str; 7] =
    ["prepare", "smoke", "evals", "shadow", "canary", "switch", "quarantine"];

/// Parts of a bundle that `gates.canary.auto_parts` may name.
pub const PARTS: [&str; 5] = ["code", "prompts", "model", "index", "tools"];
