//! libFuzzer around one target, whose name is in `PINRAIL_FUZZ`.

#![no_main]

use std::sync::LazyLock;

use pinrail_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("PINRAIL_FUZZ").unwrap_or_default();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let target = TARGETS.iter().find(|target| target.name == name);
    *target.unwrap_or_else(|| panic!("PINRAIL_FUZZ names one of {}", names.join(", ")))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (TARGET.run)(data);
});
