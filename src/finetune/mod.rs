//! Fine-tuning: a pruned or weight-shared network trained on, in process, by gradients.
//!
//! A [`Network`] is an ONNX graph whose operators all have gradients; [`Parameters`] say which of its tensors move and
//! how (weights under a mask, values of a codebook); a [`Trainer`] runs epochs over [`Samples`]. Automatic differentiation
//! is a library's (burn), on a tape; convolutions, pools and most other operators on it are our own kernels.
//!
//! Batches are cut into micro-batches of a fixed size that run side by side; their gradients are summed in order, so
//! that results do not depend on the number of threads.

mod augment;
mod cache;
mod checkpoint;
mod error;
mod initializer;
mod kernel;
mod loss;
mod mixup;
mod network;
mod node;
mod operator;
mod optimizer;
mod parameters;
mod program;
mod samples;
mod scalar;
mod settings;
mod tape;
mod trainer;
mod value;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use augment::Augment;
pub use cache::Store;
pub use error::{OperatorError, TuneError};
pub use network::Network;
pub use parameters::{Codebook, Parameter, Parameters, Values};
pub use samples::{Batch, Image, Samples};
pub use settings::{Loss, Optimizer, Schedule, Settings, Teacher, cubic_sparsity};
pub use trainer::{EpochStats, Metrics, Prepared, Trainer};

/// Runs `work`, in which the arithmetic library may panic on what it does not expect.
fn guarded<T>(work: impl FnOnce() -> Result<T, TuneError>) -> Result<T, TuneError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic.downcast_ref::<String>().cloned();
        let reason = reason.or_else(|| panic.downcast_ref::<&str>().map(|&reason| reason.to_owned()));
        Err(TuneError::Panicked { reason: reason.unwrap_or_default() })
    })
}
