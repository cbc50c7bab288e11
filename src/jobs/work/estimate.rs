//! Estimates what a compression would produce: a dry run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compress::{self, Recipe, Report};
use crate::jobs::{ExecuteError, Work};
use crate::progress::Progress;

use super::inspect::open_model;

/// Estimates what compressing `model` by `recipe` would produce.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Estimate {
    pub(super) model: PathBuf,
    pub(super) recipe: Recipe,
}

impl Work for Estimate {
    type Answer = Report;

    fn run(&self, progress: &dyn Progress) -> Result<Report, ExecuteError> {
        let model = open_model(&self.model)?;
        let _ = (model, progress);
        todo!("waits for the estimate of the core")
    }
}
