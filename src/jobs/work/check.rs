//! Checks a job before it is queued: whether recipe, model, dataset and mapping fit together, as far as headers tell.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compress::{self, Estimate, Recipe};
use crate::jobs::{BenchmarkSpec, ExecuteError, Work};
use crate::progress::Progress;

use super::benchmark::check_benchmark;
use super::compress::refused_or_failed;
use super::evaluate::Measurement;
use super::inspect::open_model;

/// Checks a job and, where it compresses, estimates what comes out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::jobs) struct Check {
    pub(super) model: PathBuf,
    pub(super) recipe: Option<Recipe>,
    pub(super) benchmark: Option<BenchmarkSpec>,
    pub(super) measurement: Option<Measurement>,
}

impl Work for Check {
    type Answer = Option<Estimate>;

    fn run(&self, _progress: &dyn Progress) -> Result<Option<Estimate>, ExecuteError> {
        let model = open_model(&self.model)?;
        if let Some(measurement) = &self.measurement {
            measurement.check(&model)?;
        }
        if let Some(benchmark) = &self.benchmark {
            check_benchmark(benchmark, &model)?;
        }
        self.recipe.as_ref().map(|recipe| compress::estimate(&model, recipe)).transpose().map_err(refused_or_failed)
    }
}
