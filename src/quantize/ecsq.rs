//! stub
use serde::{Deserialize, Serialize};

use super::{Budget, Distribution, Fitted, QuantizeError};
use crate::progress::Progress;
use crate::tensor::FloatType;

/// Ecsq.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ecsq {
    /// What limits the codebook.
    pub budget: Budget,
    /// When to stop.
    pub tolerance: Tolerance,
}

/// The fraction by which a round must improve the objective to be followed by another; above 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Tolerance(f64);

/// A tolerance outside its range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("tolerance must be above 0 and at most 1, found {found}")]
pub struct ToleranceError {
    /// What was asked for.
    pub found: f64,
}

impl Tolerance {
    /// Checks `fraction`.
    ///
    /// # Errors
    /// [`ToleranceError`] unless 0 < `fraction` <= 1.
    pub fn new(fraction: f64) -> Result<Self, ToleranceError> {
        if fraction > 0.0 && fraction <= 1.0 { Ok(Self(fraction)) } else { Err(ToleranceError { found: fraction }) }
    }

    /// The fraction.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self(1e-5)
    }
}

impl TryFrom<f64> for Tolerance {
    type Error = ToleranceError;

    fn try_from(fraction: f64) -> Result<Self, ToleranceError> {
        Self::new(fraction)
    }
}

impl From<Tolerance> for f64 {
    fn from(tolerance: Tolerance) -> Self {
        tolerance.0
    }
}

impl Ecsq {
    pub(super) fn fit(
        &self,
        d: &Distribution,
        dtype: FloatType,
        progress: &dyn Progress,
    ) -> Result<Fitted, QuantizeError> {
        todo!()
    }
}
