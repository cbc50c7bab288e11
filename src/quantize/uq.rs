//! stub
use super::{Distribution, Fitted, Levels, QuantizeError};
use crate::progress::Progress;
use crate::tensor::FloatType;

/// Uq.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Uq {
    /// Most distinct non-zero values.
    pub levels: Levels,
}

impl Uq {
    pub(super) fn fit(
        &self,
        d: &Distribution,
        dtype: FloatType,
        progress: &dyn Progress,
    ) -> Result<Fitted, QuantizeError> {
        todo!()
    }
}
