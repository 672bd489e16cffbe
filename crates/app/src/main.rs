//! The binary `tracelake`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracelake_app::run_command_line()
}
