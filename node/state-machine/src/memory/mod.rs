//! Memory of an agent, versioned under the bundle id.
//!
//! All layers share one chain of versions for each key, newest first. A layer sees the newest version whose layer
//! is among its ancestors and not newer than that ancestor's limit. Nothing is ever copied; opening a layer costs
//! the same however much there is. Runs that serve no user write elsewhere: see `scratch.rs`.

mod discard;
mod drop;
mod keys;
mod layer;
mod promote;
mod retention;
mod scratch;
mod version;
mod visible;
mod write;

pub(crate) use discard::discard;
pub(crate) use drop::{drop_layer, drop_unseen};
pub(crate) use keys::{Keys, Place};
pub(crate) use layer::{candidate, fix_base, late_behind, layer, open_layer_for_switch};
pub(crate) use promote::promote;
pub(crate) use retention::drop_old;
pub(crate) use scratch::{
    drop_scratch, enter_scratch, find as find_scratch, leave_scratch, scratch_of,
};
pub(crate) use version::cost;
pub(crate) use visible::{Chain, Found, View};
pub(crate) use write::{carried, delete, expire, put};

use crate::key::{Key, Kind, RowKey};

/// Key of one version.
pub(crate) fn version_key(agent: u32, key: &str, revision: u64) -> RowKey {
    Key::of(Kind::Memory, agent).text(key).u64(u64::MAX - revision).build()
}

/// Key of a change: what a watch reads and retention works off.
pub(crate) fn change_key(agent: u32, revision: u64, key: &str) -> RowKey {
    Key::of(Kind::MemoryChange, agent).u64(revision).last(key)
}

fn layer_key(agent: u32, layer: u32) -> RowKey {
    Key::of(Kind::Layer, agent).u32(layer).build()
}
