//! Layers pruned and shared with the help of data, the whole network in view: what a recipe asks for beyond what each
//! layer's own weights tell.

mod calibrated;

use std::path::PathBuf;

use super::CompressError;
use super::Recipe;
use super::layer::{Prepared, Task};
use super::report::Calibration;
use crate::evaluate::Samples;
use crate::model::Model;
use crate::progress::Progress;

/// What calibration and fine-tuning learn from, and what they select by.
pub struct TrainingData<'a> {
    /// To calibrate and to fine-tune on.
    pub train: Samples<'a>,
    /// To stop and to choose by; none: nothing is chosen.
    pub validation: Option<Samples<'a>>,
    /// A folder of its own for checkpoints, from which a compression that was cut off goes on, and for the fine-tuned weights;
    /// none: nothing is kept.
    pub folder: Option<PathBuf>,
    /// The folder of an earlier compression of the same model, whose fine-tuned weights take the place of the upload's.
    pub start: Option<PathBuf>,
}

/// A network whose layers were pruned, and perhaps shared, with the help of data.
pub(super) struct Adapted {
    /// The upload with the tensors that changed.
    pub model: Model,
    /// The layers pruned and shared, in the order of the tasks; none where the usual quantisers are to share them.
    pub layers: Option<Vec<Prepared>>,
    /// Remarks for people.
    pub notes: Vec<String>,
    /// What calibration saw and chose.
    pub calibration: Option<Calibration>,
}

/// Does what `recipe` asks for that needs data; `None` where it asks for no such thing.
pub(super) fn adapt(
    model: &Model,
    recipe: &Recipe,
    tasks: &mut [Task],
    data: Option<&TrainingData>,
    progress: &dyn Progress,
) -> Result<Option<Adapted>, CompressError> {
    match (recipe.needs_data(), data) {
        (true, None) => Err(CompressError::NeedsData),
        (true, Some(data)) if recipe.calibrates() => {
            calibrated::calibrate(model, recipe, tasks, data, progress).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether this build can fine-tune the graph of `model`.
pub fn can_finetune(_model: &Model) -> bool {
    false
}
