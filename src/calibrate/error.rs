//! Why a network cannot be calibrated.

use crate::algebra::NotPositive;
use crate::infer::InferError;
use crate::progress::Cancelled;

/// Why a layer cannot be pruned by its inputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The Hessian is not positive definite: a larger damping helps.
    #[error("the damped Hessian of the layer's inputs is not positive definite (pivot {index} is {pivot})")]
    NotPositive { index: usize, pivot: f64 },
    /// An infinity or no number at all among what a layer is multiplied by.
    #[error(
        "what {layer:?} is multiplied by is not finite for all calibration samples: some of them hold NaN or infinity"
    )]
    NotFinite { layer: String },
    /// The statistics of a layer, and the work on them, would take more memory than is allowed.
    #[error(
        "calibrating {layer:?} takes {needed_bytes} bytes, more than the {limit_bytes} allowed: a rule may skip it"
    )]
    LayerTooLarge { layer: String, needed_bytes: u64, limit_bytes: u64 },
    /// The activations of the calibration samples would take more memory than is allowed.
    #[error(
        "the activations of {samples} calibration samples take {needed_bytes} bytes, more than the {limit_bytes} allowed: fewer samples help"
    )]
    TooManySamples { samples: usize, needed_bytes: u64, limit_bytes: u64 },
    /// The weights of layers that share a codebook, with what each counts, would take more memory than is allowed.
    #[error(
        "fitting unified codebooks to {weights} weights that count by their inputs takes {needed_bytes} bytes, more than the {limit_bytes} allowed: without the weighting it takes few"
    )]
    CodebookTooLarge { weights: u64, needed_bytes: u64, limit_bytes: u64 },
    /// The graph could not be run.
    #[error(transparent)]
    Infer(#[from] InferError),
}

impl From<Cancelled> for CalibrateError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<NotPositive> for CalibrateError {
    fn from(NotPositive { index, pivot }: NotPositive) -> Self {
        Self::NotPositive { index, pivot }
    }
}
