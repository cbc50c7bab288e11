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
#[cfg(test)]
mod tests;
#[cfg(feature = "finetune")]
mod tuned;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(super) use calibrated::memory_bytes;

use super::layer::{Prepared, Task};
use super::pipeline::Job;
use super::{Calibration, CompressError, EpochReport};
use crate::calibrate::RatePoint;
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
    /// The fine-tuned weights of an earlier compression of the same model, which take the place of the upload's.
    pub start: Option<PathBuf>,
    /// What compressions of one model on the same data have in common.
    pub store: TrainingStore,
}

/// The file of fine-tuned weights, as they are before they are shared: float32 tensors by name.
const TUNED: &str = "tuned.safetensors";

/// Where a compression leaves its fine-tuned weights, whose folder is [`TrainingData::folder`], if it trains any.
pub fn tuned_file(folder: &Path) -> PathBuf {
    folder.join(TUNED)
}

/// What compressions of one model on the same data have in common: what every layer loses at every setting, and outputs of
/// frozen layers and of the upload, sample by sample. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct TrainingStore {
    /// By what tells measurements apart.
    measured: std::sync::Arc<std::sync::Mutex<HashMap<String, Vec<MeasuredLayer>>>>,
    #[cfg(feature = "finetune")]
    rows: std::sync::Arc<crate::finetune::Store>,
}

/// A network whose layers were pruned, and perhaps shared, with the help of data.
pub(super) struct Adapted {
    /// The upload with the tensors that changed.
    pub model: Model,
    /// The layers pruned and shared, in the order of the tasks.
    pub layers: Vec<Prepared>,
    /// What each epoch of fine-tuning was like.
    pub training: Vec<EpochReport>,
    /// Remarks for people.
    pub notes: Vec<String>,
    /// What calibration saw and chose.
    pub calibration: Option<Calibration>,
}

/// The settings that a target chose, by the names of the layers.
pub(super) type Rates = HashMap<String, RatePoint>;

/// A layer's name and its settings, each with what the layer loses by it.
pub(super) type MeasuredLayer = (String, Vec<RatePoint>);

/// What every layer that a product multiplies by loses at every setting.
///
/// # Errors
/// As [`adapt`].
pub(super) fn measure_rates(
    job: &Job<'_>,
    tasks: &[Task],
    progress: &dyn Progress,
) -> Result<Vec<MeasuredLayer>, CompressError> {
    let Some(data) = job.data else { return Err(CompressError::NeedsData) };
    let names: Vec<&str> = tasks.iter().map(|task| task.weight.name.as_str()).collect();
    let key = format!("{:?} {names:?}", job.recipe.calibrate());
    let known = || data.store.measured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(measured) = known().get(&key) {
        return Ok(measured.clone());
    }
    let measured = calibrated::measure_rates(job, tasks, data, progress)?;
    known().insert(key, measured.clone());
    Ok(measured)
}

/// Does what the recipe asks for that needs data; `None` where it asks for no such thing.
pub(super) fn adapt(
    job: &Job<'_>,
    tasks: &mut [Task],
    progress: &dyn Progress,
) -> Result<Option<Adapted>, CompressError> {
    if !job.recipe.needs_data() {
        return Ok(None);
    }
    let data = job.data.ok_or(CompressError::NeedsData)?;
    match (job.recipe.finetune().filter(|_| job.trains), job.rates) {
        (Some(settings), Some(_)) => tune(job, settings, tasks, data, progress).map(Some),
        (Some(settings), None) => {
            if job.recipe.calibrates() {
                // What would not fit is not to be found out after hours of training.
                calibrated::announce(job, tasks, data, progress)?;
            }
            finetune(job, settings, tasks, data, progress).map(Some)
        }
        (None, _) => calibrated::calibrate(job, tasks, data, progress).map(Some),
    }
}

#[cfg(feature = "finetune")]
use finetuned::{finetune, tune};

#[cfg(not(feature = "finetune"))]
fn finetune(
    _job: &Job<'_>,
    _settings: &super::Finetune,
    _tasks: &mut [Task],
    _data: &TrainingData,
    _progress: &dyn Progress,
) -> Result<Adapted, CompressError> {
    Err(CompressError::WithoutFinetuning)
}

#[cfg(not(feature = "finetune"))]
use finetune as tune;

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
