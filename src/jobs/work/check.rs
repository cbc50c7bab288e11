//! Checks a job before it is queued: whether recipe, model, dataset and mapping fit together, as far as headers tell.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compress::{self, CompressError, Estimate, Recipe};
use crate::evaluate::Split;
use crate::jobs::{BenchmarkSpec, ExecuteError, Work};
use crate::progress::Progress;
use crate::search::Search;

use super::benchmark::check_benchmark;
use super::compress::refused_or_failed;
use super::data::SplitFiles;
use super::evaluate::Measurement;
use super::inspect::open_model;

/// Checks a job and, where it compresses, estimates what comes out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::jobs) struct Check {
    pub(super) model: PathBuf,
    pub(super) recipe: Option<Recipe>,
    pub(super) benchmark: Option<BenchmarkSpec>,
    pub(super) search: Option<Search>,
    pub(super) data: Option<SplitFiles>,
    pub(super) measurement: Option<Measurement>,
    /// Threads that jobs have: a check itself may run on fewer.
    pub(super) threads: usize,
}

impl Work for Check {
    const NAME: &'static str = "check";

    type Answer = Option<Estimate>;

    fn run(&self, _progress: &dyn Progress) -> Result<Option<Estimate>, ExecuteError> {
        let model = open_model(&self.model)?;
        if let Some(measurement) = &self.measurement {
            measurement.check(&model)?;
        }
        if let Some(benchmark) = &self.benchmark {
            check_benchmark(benchmark, &model, self.threads)?;
        }
        if let Some(search) = &self.search {
            search.check().map_err(super::search::refused_or_failed)?;
        }
        match (&self.data, &self.recipe) {
            (Some(data), None) => {
                data.check(&model, Split::Validation)?;
                if let (Some(search), Some(validation)) = (&self.search, data.open(Split::Validation)?) {
                    let metric = search.metric_on(validation.samples(&model)?.target());
                    metric.map_err(super::search::refused_or_failed)?;
                }
            }
            (Some(data), Some(_)) => data.check(&model, Split::Train)?,
            (None, Some(recipe)) if recipe.needs_data() => return Err(refused_or_failed(CompressError::NeedsData)),
            (None, _) => {}
        }
        self.recipe.as_ref().map(|recipe| compress::estimate(&model, recipe)).transpose().map_err(refused_or_failed)
    }
}
