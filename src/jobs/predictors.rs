//! Loaded predictors: kept while they fit a stated memory budget, the least recently used dropped first.

use std::sync::Arc;

use crate::infer::{Predictor, Residency};
use crate::storage::{ModelRecord, StoreError};

use super::ExecuteError;

/// The predictors in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct Predictors {}

/// A version that is ready to predict.
#[derive(Clone)]
pub struct Loaded {
    pub predictor: Arc<Predictor>,
    pub version: i64,
    pub residency: Residency,
}

impl Predictors {
    /// The predictor of a version, loaded if need be. Concurrent callers share one load.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn get(&self, model: &ModelRecord, version: i64) -> Result<Loaded, LoadError> {
        todo!()
    }

    /// Whether a version is in memory now.
    pub fn is_loaded(&self, model: &ModelRecord, version: i64) -> bool {
        todo!()
    }

    /// Drops what is loaded of a model: all versions, or one.
    pub fn forget(&self, model: &ModelRecord, version: Option<i64>) {
        todo!()
    }

    /// Bytes held by loaded weights.
    pub fn resident_bytes(&self) -> u64 {
        todo!()
    }
}

/// Why a version cannot predict.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model has operators that predictions lack, or is weights only.
    #[error("model {model} cannot predict: {reason}")]
    NotPredictable { model: String, reason: String },
    /// Its memory alone is more than the budget.
    #[error("version {version} needs {needed_bytes} bytes, the budget is {budget_bytes}")]
    OverBudget { version: i64, needed_bytes: u64, budget_bytes: u64 },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// The load failed.
    #[error(transparent)]
    Execute(#[from] Arc<ExecuteError>),
}
