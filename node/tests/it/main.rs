//! Tests of a node's layers together, over real storage and loopback.

mod binary;
mod nodes;
mod replicas;
