//! The binary `tracelake`.

use std::process::ExitCode;

/// Bodies of requests and columns in the making are large and short-lived: this allocator keeps their memory
/// for the next ones, where the system's gives it back and takes it anew, page by page.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Memory that nobody asked for again within a fifth of a second goes back to the system. By default it takes ten
/// seconds: what one commit of a large trace leaves would still be there when the next ones need more. At once
/// costs half as much CPU again (`docs/performance.md`).
#[expect(
    unsafe_code,
    reason = "the allocator reads this name before `main`; the alternative is a variable of the environment"
)]
// SAFETY: the allocator looks for a text of this name that ends with a zero.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 36] = b"dirty_decay_ms:200,muzzy_decay_ms:0\0";

/// Bounds what the system's allocator keeps. Zstd, which is C, takes its contexts from there: some MiB for each
/// column that is written, by threads that come and go. By default each thread has a heap of its own, up to
/// eight per core, and each heap keeps what it had at its largest.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "no safe crate has it; the alternative is a variable of the environment"
)]
fn bound_system_allocator() {
    // SAFETY: no other thread runs yet, and both parameters take any number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
const fn bound_system_allocator() {}

fn main() -> ExitCode {
    bound_system_allocator();
    tracelake_cli::run_command_line()
}
