//! stub
use super::{Distribution, Fitted, Levels, QuantizeError};
use crate::progress::Progress;
use crate::tensor::FloatType;

/// Pws.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pws {
    /// Most distinct non-zero values.
    pub levels: Levels,
    /// Seed.
    pub seed: u64,
}

impl Pws {
    pub(super) fn fit(
        &self,
        d: &Distribution,
        dtype: FloatType,
        progress: &dyn Progress,
    ) -> Result<Fitted, QuantizeError> {
        todo!()
    }
}
