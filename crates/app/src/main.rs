//! The binary `tracelake`.

use std::process::ExitCode;

/// Bodies of requests and columns in the making are large and short-lived: this allocator keeps their memory
/// for the next ones, where the system's gives it back and takes it anew, page by page.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tracelake_app::run_command_line()
}
