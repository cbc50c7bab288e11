//! tract's assertions kept inside: a hostile graph, or a symbol where tract wants a number, may make it panic.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use tract_onnx::tract_hir::prelude::TractResult;

thread_local! {
    /// This thread is inside [`guarded`], where a panic is an answer and no news for the log.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and turns both its error and its panic into words.
pub(super) fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    keep_guarded_panics_quiet();
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(outer);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => Err(message(&*panic)),
    }
}

/// Wraps the process's panic hook, once: every other panic is reported as before.
fn keep_guarded_panics_quiet() {
    static WRAP: Once = Once::new();
    WRAP.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                report(panic);
            }
        }));
    });
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
        assert!(!GUARDED.get());
    }
}
