//! What a child that died died of.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::jobs::{ExecuteError, Refusal};

use super::Limits;

/// The error of the work that ended its child with `status`. What only the model can have done is final; what somebody else may
/// have done, such as a kill, is worth another try.
pub(super) fn of(status: ExitStatus, limits: &Limits) -> ExecuteError {
    let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
    let detail = match signal {
        Some(Signal::SIGXCPU) => "the work took more than its processor time".to_owned(),
        Some(Signal::SIGABRT) => {
            format!(
                "the work was aborted: it ran out of the {} bytes of memory that it may have, or of stack",
                limits.memory_bytes
            )
        }
        Some(signal @ (Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE)) => {
            format!("the work crashed its process ({signal})")
        }
        _ => return ExecuteError::failed(format!("the process of the work ended early ({status})")),
    };
    Refusal::LimitsExceeded.because(detail)
}

/// The error of work that took longer than `time`.
pub(super) fn too_slow(time: Duration) -> ExecuteError {
    Refusal::LimitsExceeded.because(format!("the work took longer than {} s", time.as_secs()))
}
