//! Why work on files failed.

use serde::{Deserialize, Serialize};

/// Why work on files failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// What the user gave is at fault; `detail` says how.
    #[error("{detail}")]
    Refused { refusal: Refusal, detail: String },
    /// The work was asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The machine failed, e.g. its disk; it may work another time.
    #[error("{detail}")]
    Failed { detail: String },
    /// Too many requests wait for a thread.
    #[error("too many requests wait for the processor; try again later")]
    Busy,
    /// The work panicked: a bug. The panic was reported where it happened.
    #[error("the work stopped unexpectedly")]
    Panicked,
}

/// What was wrong with what the user gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The file is not a model.
    InvalidModel,
    /// The file is not a dataset.
    InvalidDataset,
    /// The recipe contradicts itself or the model.
    InvalidRecipe,
    /// A tensor cannot be compressed, e.g. because it holds NaN.
    NotCompressible,
    /// The model has operators that predictions lack, or is weights only.
    NotPredictable,
    /// The dataset, the mapping and the model do not fit together.
    DataMismatch,
    /// The settings of a benchmark or a search are out of range, or do not fit the model.
    InvalidSettings,
    /// What a job names is gone.
    NotFound,
    /// A text holds the character NUL.
    InvalidText,
    /// The work took more memory or time than its process may have.
    LimitsExceeded,
}

impl Refusal {
    /// The word for it, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidModel => "invalid_model",
            Self::InvalidDataset => "invalid_dataset",
            Self::InvalidRecipe => "invalid_recipe",
            Self::NotCompressible => "not_compressible",
            Self::NotPredictable => "not_predictable",
            Self::DataMismatch => "data_mismatch",
            Self::InvalidSettings => "invalid_settings",
            Self::NotFound => "not_found",
            Self::InvalidText => "invalid_text",
            Self::LimitsExceeded => "limits_exceeded",
        }
    }

    /// The error that `error` is, if it is the user's.
    pub(crate) fn because(self, error: impl std::fmt::Display) -> ExecuteError {
        ExecuteError::Refused { refusal: self, detail: error.to_string() }
    }
}

impl ExecuteError {
    /// The machine failed with `error`.
    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed { detail: error.to_string() }
    }
}
