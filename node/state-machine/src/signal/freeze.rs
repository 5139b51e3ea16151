//! The baseline of a switch: what the bundle before it was like in its last time, kept with the release.

use pinrail_proto::log::{AgentRecord, BaselineRecord};
use pinrail_proto::v1::RunKind;

use crate::key::Kind;
use crate::outcome::Stop;
use crate::release;
use crate::store::{Fault, Read};
use crate::txn::{Txn, get};

use super::settings::Windows;
use super::window::sum;

/// Freezes the live bundle's last time for the release that takes its place now.
pub(crate) fn freeze(txn: &mut Txn<'_>, agent: &AgentRecord, release: u32) -> Result<(), Stop> {
    if agent.live_bundle_id.is_empty() {
        return Ok(());
    }
    let policy = release::policy(txn.read(), agent.number, release)?;
    let since_ms = txn.now.saturating_sub(Windows::of_policy(&policy).baseline_ms);
    let kinds = [RunKind::Live, RunKind::Canary];
    let baseline = BaselineRecord {
        bundle_id: agent.live_bundle_id.clone(),
        since_ms,
        until_ms: txn.now,
        sum: Some(sum(txn.read(), agent, &agent.live_bundle_id, &kinds, since_ms)?),
    };
    txn.put(release::row(Kind::SignalBaseline, agent.number, release), &baseline);
    Ok(())
}

/// What was frozen at the switch of a release.
pub(crate) fn frozen(
    read: &dyn Read,
    agent: u32,
    release: u32,
) -> Result<Option<BaselineRecord>, Fault> {
    get(read, &release::row(Kind::SignalBaseline, agent, release))
}
