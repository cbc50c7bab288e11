//! Layers pruned and shared with the help of data, the whole network in view: what a recipe asks for beyond what each
//! layer's own weights tell.

mod calibrated;
#[cfg(feature = "finetune")]
mod finetuned;
#[cfg(feature = "finetune")]
mod gradual;
#[cfg(feature = "finetune")]
mod run;
#[cfg(feature = "finetune")]
mod shared;
#[cfg(feature = "finetune")]
mod tuned;

use std::path::PathBuf;

use super::layer::{Prepared, Task};
use super::{Calibration, CompressError, EpochReport, Recipe};
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
    /// What each epoch of fine-tuning was like.
    pub training: Vec<EpochReport>,
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
    if !recipe.needs_data() {
        return Ok(None);
    }
    let data = data.ok_or(CompressError::NeedsData)?;
    match recipe.finetune() {
        Some(settings) => finetune(model, recipe, settings, tasks, data, progress).map(Some),
        None => calibrated::calibrate(model, recipe, tasks, data, progress).map(Some),
    }
}

#[cfg(feature = "finetune")]
use finetuned::finetune;

#[cfg(not(feature = "finetune"))]
fn finetune(
    _model: &Model,
    _recipe: &Recipe,
    _settings: &super::Finetune,
    _tasks: &mut [Task],
    _data: &TrainingData,
    _progress: &dyn Progress,
) -> Result<Adapted, CompressError> {
    Err(CompressError::WithoutFinetuning)
}

/// Whether this build can fine-tune the graph of `model`.
#[cfg(feature = "finetune")]
pub fn can_finetune(model: &Model) -> bool {
    run::network(model).is_ok()
}

/// Whether this build can fine-tune the graph of `model`: it was made without.
#[cfg(not(feature = "finetune"))]
pub fn can_finetune(_model: &Model) -> bool {
    false
}
