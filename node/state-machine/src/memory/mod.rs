//! Memory of an agent, versioned under the bundle id.
//!
//! All layers share one chain of versions for each key, newest first. A layer sees the newest version whose layer
//! is among its ancestors and not newer than that ancestor's limit. Nothing is ever copied; opening a layer costs
//! the same however much there is.

mod layer;
mod visible;
mod write;

pub(crate) use layer::{candidate, layer, open_layer_for_switch};
pub(crate) use visible::{Found, View, versions};
pub(crate) use write::{delete, expire, put};

use crate::key::{Key, Kind};

/// Key of one version.
fn version_key(agent: u32, key: &str, revision: u64) -> Vec<u8> {
    Key::of(Kind::Memory, agent).text(key).u64(u64::MAX - revision).build()
}

fn layer_key(agent: u32, layer: u32) -> Vec<u8> {
    Key::of(Kind::Layer, agent).u32(layer).build()
}
