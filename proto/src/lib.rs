//! The protobuf contracts of Pinrail, and the few facts that every layer shares: ids, limits, reasons, time.
//!
//! `v1` is what users see, `peer` what members say to each other, `log` what is kept for ever.
//! This crate does no I/O and knows no rule of the system.

#[cfg(feature = "grpc")]
pub mod codec;
pub mod id;
#[cfg(feature = "json")]
pub mod json;
mod kind;
pub mod limits;
pub mod next;
pub mod policy;
pub mod reason;
pub mod time;
#[cfg(feature = "json")]
pub mod tool;
pub mod trace;

/// Encodes a message. Into room of just its length: what grows with each byte of a number is half as quick.
pub fn encode(message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = vec![0; message.encoded_len()];
    message.encode_raw(&mut bytes.as_mut_slice());
    bytes
}

/// Encoded `FileDescriptorSet` of every package, for reflection and JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    unreachable_pub,
    unused_qualifications,
    missing_debug_implementations,
    reason = "generated; its modules are nested as the packages are, since generated code refers to them so"
)]
mod generated {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/pinrail.v1.rs"));
    }
    pub mod log {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/pinrail.log.v1.rs"));
        }
    }
    pub mod peer {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/pinrail.peer.v1.rs"));
        }
    }
}

/// What is persisted, package `pinrail.log.v1`.
pub use generated::log::v1 as log;
/// What peers say to each other, package `pinrail.peer.v1`.
pub use generated::peer::v1 as peer;
/// The API, package `pinrail.v1`.
pub use generated::v1;
