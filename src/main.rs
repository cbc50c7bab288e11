//! The `weightpress` command: everything it does is in [`weightpress::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    weightpress::cli::main()
}
