//! tract's assertions kept inside: a hostile graph, or a symbol where tract wants a number, may make it panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tract_onnx::tract_hir::prelude::TractResult;

/// Runs `work` and turns both its error and its panic into words.
pub(super) fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => {
            let reason = message(&*panic);
            tracing::warn!(reason, "the graph engine panicked");
            Err(reason)
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "the graph engine panicked".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_become_words() {
        assert_eq!(guarded(|| Ok(7)), Ok(7));
        assert_eq!(guarded::<()>(|| Err(std::fmt::Error.into())), Err(std::fmt::Error.to_string()));
        assert_eq!(guarded::<()>(|| panic!("axis {}", 3)), Err("axis 3".into()));
    }
}
