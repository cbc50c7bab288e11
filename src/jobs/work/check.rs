//! Checks a job before it is queued: whether recipe, model, dataset and mapping fit together, as far as headers tell.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compress::Recipe;
use crate::jobs::{ExecuteError, Refusal, Work};
use crate::progress::Progress;

use super::evaluate::Measurement;
use super::inspect::open_model;

/// Checks a job before it is queued.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(super) model: PathBuf,
    pub(super) recipe: Option<Recipe>,
    pub(super) measurement: Option<Measurement>,
}

impl Work for Check {
    type Answer = ();

    fn run(&self, _progress: &dyn Progress) -> Result<(), ExecuteError> {
        let model = open_model(&self.model)?;
        if let Some(recipe) = &self.recipe {
            let layers = model.weights().iter().map(|weight| (weight.name.as_str(), weight.op.as_str()));
            let unmatched = recipe.unmatched(layers);
            if !unmatched.is_empty() {
                let named = unmatched.join(", ");
                return Err(
                    Refusal::InvalidRecipe.because(format_args!("the recipe names what the model lacks: {named}"))
                );
            }
        }
        if let Some(measurement) = &self.measurement {
            measurement.check(&model)?;
        }
        Ok(())
    }
}
