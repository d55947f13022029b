//! One binary for all targets: `PHLIX_FUZZ_TARGET` names the one to run.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<phlix_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("PHLIX_FUZZ_TARGET").expect("PHLIX_FUZZ_TARGET names a target");
    *phlix_fuzz::TARGETS.iter().find(|target| target.name == name).expect("PHLIX_FUZZ_TARGET is a target")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
