//! The fraction of weights that pruning removes.

use serde::{Deserialize, Serialize};

/// The fraction of weights to set to zero, at least 0 and below 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sparsity(f64);

/// A fraction of weights that cannot be removed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("sparsity must be at least 0 and below 1, found {found}")]
pub struct SparsityError {
    /// What was asked for.
    pub found: f64,
}

impl Sparsity {
    /// No weight.
    pub const NONE: Self = Self(0.0);

    /// Checks `fraction`.
    ///
    /// # Errors
    /// [`SparsityError`] unless 0 <= `fraction` < 1.
    pub fn new(fraction: f64) -> Result<Self, SparsityError> {
        if (0.0..1.0).contains(&fraction) { Ok(Self(fraction)) } else { Err(SparsityError { found: fraction }) }
    }

    /// The fraction.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Sparsity {
    /// Half of the weights, which most networks survive without retraining.
    fn default() -> Self {
        Self(0.5)
    }
}

impl TryFrom<f64> for Sparsity {
    type Error = SparsityError;

    fn try_from(fraction: f64) -> Result<Self, SparsityError> {
        Self::new(fraction)
    }
}

impl From<Sparsity> for f64 {
    fn from(sparsity: Sparsity) -> Self {
        sparsity.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_outside_the_range_is_named() {
        for found in [1.0, -0.1, 2.0, f64::INFINITY] {
            assert_eq!(Sparsity::new(found), Err(SparsityError { found }));
        }
        assert!(Sparsity::new(f64::NAN).is_err());
        assert_eq!(Sparsity::new(1.0).unwrap_err().to_string(), "sparsity must be at least 0 and below 1, found 1");
        assert_eq!(Sparsity::new(0.0).map(Sparsity::get), Ok(0.0));
    }
}
