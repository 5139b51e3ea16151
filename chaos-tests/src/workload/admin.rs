//! The one administrator of an agent: switches and rollbacks by a schedule, each followed by a read of the route,
//! so that the history knows the revision of every route change.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::{Known, Operator, Patience};
use crate::history::{Answer, Call, InFlight, Outcome};

/// A route change to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminStep {
    SwitchTo(String),
    RollBack(InFlight),
}

/// Works a schedule off; times count from `begin`. The last bundle that is live is known in the end.
pub async fn administrate(
    agent: String,
    mut operator: Operator,
    known: Known,
    begin: Instant,
    schedule: Vec<(Duration, AdminStep)>,
) {
    // An administrator does not give up: each route change must have a known fate.
    operator.patience = Patience {
        whole: Duration::from_secs(60),
        pause: Duration::from_millis(10),
        ..operator.patience
    };
    for (at, step) in schedule {
        sleep_until(begin + at).await;
        let call = match step {
            AdminStep::SwitchTo(bundle_id) => Call::Switch { bundle_id },
            AdminStep::RollBack(in_flight) => {
                let live = operator.operate(&agent, Call::ReadRoute).await;
                let Outcome::Ok { answer: Answer::Route { bundle_id, .. }, .. } = live else {
                    continue;
                };
                Call::Rollback { from_bundle_id: bundle_id, in_flight }
            }
        };
        if let Outcome::Ok { answer: Answer::Moved { to, .. }, .. } =
            operator.operate(&agent, call).await
        {
            known.add_bundle(&to);
        }
        operator.operate(&agent, Call::ReadRoute).await;
    }
}
