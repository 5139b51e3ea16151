//! Compiles the protobuf files with protox, so that no protoc is needed.

use std::path::Path;
use std::{env, fs};

use prost::Message as _;

const ROOT: &str = "proto";

/// What is large and rare beside its siblings: an enum is as large as its largest variant, and one of these goes through many
/// hands for each command.
const BOXED: [&str; 12] = [
    ".pinrail.log.v1.Command.kind.create_agent",
    ".pinrail.log.v1.Command.kind.update_agent",
    ".pinrail.log.v1.Outcome.result.agent",
    ".pinrail.log.v1.Outcome.result.bundle",
    ".pinrail.log.v1.Outcome.result.drill",
    ".pinrail.log.v1.Outcome.result.eval_report",
    ".pinrail.log.v1.Outcome.result.release",
    ".pinrail.log.v1.Outcome.result.rollback",
    ".pinrail.log.v1.Outcome.result.switch",
    ".pinrail.log.v1.RunRecord.open_step",
    ".pinrail.v1.WorkResponse.message.assignment",
    ".pinrail.v1.WorkResponse.message.welcome",
];

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
    for field in BOXED {
        config.boxed(field);
    }
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
