//! `weightpress child`: work on one model, in a process of its own, for the service that started it.

use super::CliError;
use crate::jobs;

/// Serves the parent at the other end of standard input until it hangs up.
pub fn run() -> Result<(), CliError> {
    jobs::serve_child().map_err(CliError::failed)
}
