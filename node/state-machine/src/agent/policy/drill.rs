//! `[drill]`: when it is practised.

use pinrail_proto::policy::range::{DRILL_EVERY, DRILL_LIMIT};
use pinrail_proto::policy::window::Window;
use pinrail_proto::time::millis;
use pinrail_proto::v1;

use super::range::{invalid, quoted, span, word};
use crate::outcome::Stop;

pub(super) fn check(drill: &v1::DrillPolicy) -> Result<(), Stop> {
    // 0 is by hand.
    if drill.every.as_ref().and_then(millis) != Some(0) {
        span("drill.every", drill.every.as_ref(), DRILL_EVERY)?;
    }
    if !drill.window.is_empty() {
        Window::parse(&drill.window)
            .map_err(|error| invalid("drill.window", quoted(&drill.window), &error.to_string()))?;
    }
    word::<v1::DrillMode>("drill.mode", drill.mode, "drill_route, live")?;
    span("drill.limit", drill.limit.as_ref(), DRILL_LIMIT)
}
