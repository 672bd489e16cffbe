//! Coverage-guided fuzzing of everything that reads bytes from outside.
//!
//! Comes in: bytes that libFuzzer invents. Goes out: an abort when a property of `targets` does
//! not hold, when a call takes too much memory, or when it panics. One binary holds all targets,
//! so that it is linked once; the variable `FUZZ_TARGET` names the one to run. `run.py` builds it
//! with coverage counters and runs every target: `make fuzz`.

#![no_main]

mod memory;
/// The rows of the lake room without the rest of it, which brings the Delta kernel along.
#[path = "../../crates/lake/src/rows/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "only encode and rebuild are used")]
mod rows;
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static MEMORY: memory::Counting = memory::Counting::new();

static TARGET: OnceLock<targets::Target> = OnceLock::new();

fn select() {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = targets::ALL.iter().find(|target| target.name == name);
    let known: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
    let target = found.unwrap_or_else(|| panic!("FUZZ_TARGET `{name}` is none of {known:?}"));
    TARGET.get_or_init(|| *target);
}

fuzz_target!(init: select(), |data: &[u8]| {
    let target = TARGET.get().expect("libFuzzer initializes before it calls");
    let before = MEMORY.begin();
    (target.run)(data);
    let peak = MEMORY.peak_since(before);
    let allowed = target.base_bytes + target.bytes_per_byte * data.len();
    assert!(peak <= allowed, "{} bytes of input took {peak} bytes of memory, {allowed} are allowed", data.len());
});
