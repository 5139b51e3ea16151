//! What the kind of a run means, wherever it is asked.

use crate::v1::RunKind;

impl RunKind {
    /// Whether somebody waits for what such a run does. The others try a bundle: they stay on the one that they name, write to
    /// a scratch memory, and start no runs of other agents.
    #[must_use]
    pub fn serves_users(self) -> bool {
        match self {
            Self::Unspecified | Self::Live | Self::Canary => true,
            Self::Shadow | Self::Eval | Self::Smoke | Self::Drill => false,
        }
    }

    /// Whether tools with side effects are not called in such a run: it repeats what a live run does, or only practises.
    #[must_use]
    pub fn suppresses_effects(self) -> bool {
        match self {
            Self::Shadow | Self::Drill => true,
            Self::Unspecified | Self::Live | Self::Canary | Self::Eval | Self::Smoke => false,
        }
    }
}
