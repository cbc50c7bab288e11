//! The lossless path: a tensor's own distinct values as its codebook.
use super::QuantizeError;
use crate::progress::Progress;
use crate::tensor::{FloatData, FloatType, Matrix};

/// Shares the exact distinct values of `data` (finite, in matrix order, of element type `dtype`): bit by bit, so -0.0 is
/// a value of its own. With more distinct values than a codebook holds the matrix stays raw.
///
/// # Errors
/// [`QuantizeError::Cancelled`].
///
/// # Panics
/// If `data` does not hold `rows x cols` finite values.
pub fn share_exact(
    shape: (usize, usize),
    dtype: FloatType,
    data: FloatData,
    progress: &dyn Progress,
) -> Result<Matrix, QuantizeError> {
    todo!()
}
