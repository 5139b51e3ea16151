//! CI's short share of the simulation: twenty seeds, each in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::PathBuf;
use std::process::Command;

/// Seeds of the share; `make sim` runs more.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=20;
const AT_ONCE: usize = 2;

#[test]
fn twenty_seeds_keep_every_promise() {
    let seeds: Vec<u64> = SEEDS.collect();
    let mut failed = Vec::new();
    for pair in seeds.chunks(AT_ONCE) {
        let running: Vec<_> = pair
            .iter()
            .map(|seed| {
                let child = Command::new(chaos())
                    .args(["sim-one", "--seed", &seed.to_string()])
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap();
                (*seed, child)
            })
            .collect();
        for (seed, child) in running {
            let output = child.wait_with_output().unwrap();
            if !output.status.success() {
                println!("{}", String::from_utf8_lossy(&output.stdout));
                println!("{}", String::from_utf8_lossy(&output.stderr));
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "again with: chaos sim-one --seed {}", failed[0]);
}

fn chaos() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_chaos"))
}
