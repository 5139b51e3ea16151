//! Compiles the protobuf files with protox, so that no protoc is needed.

use std::path::Path;
use std::{env, fs};

use prost::Message as _;

const ROOT: &str = "proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for package in ["pinrail/v1", "pinrail/log/v1", "pinrail/peer/v1"] {
        for entry in fs::read_dir(Path::new(ROOT).join(package))? {
            files.push(entry?.path());
        }
    }
    files.sort();
    println!("cargo:rerun-if-changed={ROOT}");

    let descriptors = protox::compile(&files, [ROOT])?;
    #[expect(clippy::disallowed_methods, reason = "a build script is told where to write this way")]
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;

    // Messages know their own names, so that their JSON follows from their descriptors.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .codec_path("crate::codec::MessageCodec")
        .bytes(".")
        // Replicas hash what they store: maps must have one order.
        .btree_map(".")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
