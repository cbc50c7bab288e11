//! stub
use std::sync::Arc;

use super::QuantizeError;
use crate::progress::Progress;
use crate::tensor::{Codebook, LayerContext, Matrix};

/// A fitted quantiser: a codebook and the rule that gives every weight its symbol.
#[derive(Debug, Clone)]
pub struct Fitted {
    codebook: Arc<Codebook>,
}

impl Fitted {
    /// The shared values, with +0.0 where a zero was in the distribution.
    pub fn codebook(&self) -> &Arc<Codebook> {
        &self.codebook
    }

    /// Gives every weight of `layer` its symbol. Deterministic, whatever the number of threads.
    ///
    /// # Errors
    /// [`QuantizeError::Cancelled`]; [`QuantizeError::UnseenZero`] for a layer that was not in the distribution.
    pub fn assign(&self, layer: &LayerContext<'_>, progress: &dyn Progress) -> Result<Matrix, QuantizeError> {
        todo!()
    }
}
