//! What a recipe would do to a model, worked out without reading a weight: what a dry run answers.

use serde::{Deserialize, Serialize};

use super::adapt::memory_bytes;
use super::bound;
use super::layer::Task;
use super::pipeline::{self, Plan};
use super::{CodecChoice, CompressError, Recipe};
use crate::calibrate::LIMITS;
use crate::codec::CodecId;
use crate::model::{Kept, Model, Role};
use crate::prune::{Criterion, Scope};
use crate::quantize::{Budget, Method, Quantizer};
use crate::tensor::MAX_LEVELS;

/// Most bytes that a record takes in the container's table of contents, and that its own header adds.
const ENTRY_BYTES: u64 = 256;

/// Most bytes of the container's metadata, the recipe apart.
const CONTAINER_BYTES: u64 = 1024;

/// A recipe checked against a model, resolved for every layer, with the most bytes that it can come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Estimate {
    /// The uploaded file.
    pub source_bytes: u64,
    /// The artifact is no larger: each layer at its bound, all else as in the uploaded file, and the container; or the target, where
    /// the recipe has one.
    pub artifact_bytes_at_most: u64,
    /// Memory that calibration would take at most beside model, samples and activations: copies of the weights, the largest
    /// layer's statistics with the work on them, weights that unified codebooks are fitted to. Null where nothing is calibrated.
    pub calibration_bytes: Option<u64>,
    /// Weights in all layers that would be compressed.
    pub weights: u64,
    /// One row per layer that would be compressed.
    pub layers: Vec<LayerEstimate>,
    /// What would stay as it is, and why.
    pub kept: Vec<Kept>,
    /// Remarks for people, e.g. on rules of the recipe that would apply to nothing.
    pub notes: Vec<String>,
}

/// What would happen to one layer. Where the recipe has a target, pruning and sharing follow from it and the data: their fields are as
/// those of a layer that keeps its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct LayerEstimate {
    /// The weight tensor's name.
    pub name: String,
    /// Operator type of its readers.
    pub op: String,
    /// Dimensions in the model.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: u64,
    /// In the uploaded file's type.
    pub original_bytes: u64,
    /// Null: no weight is removed.
    pub criterion: Option<Criterion>,
    /// The fraction of weights to be set to zero: of this layer, or with the scope `global` of all such layers together.
    pub sparsity: f64,
    /// Which weights are ranked together; null without pruning.
    pub scope: Option<Scope>,
    /// Null: every weight keeps its exact value.
    pub method: Option<Method>,
    /// Most distinct non-zero values; null without a method.
    pub levels: Option<usize>,
    /// Null: the smallest.
    pub codec: Option<CodecId>,
    /// The layer takes no more in the artifact, whatever its weights: by the format of the codec, or of the smallest. Counts a
    /// codebook that it would share with others, and with the scope `global` no zeros.
    pub compressed_bytes_at_most: u64,
}

/// Checks `recipe` against `model` and says what [`super::compress`] would do.
///
/// # Errors
/// [`CompressError::Unmatched`], [`CompressError::Calibrate`] as the compression itself would answer.
pub fn estimate(model: &Model, recipe: &Recipe) -> Result<Estimate, CompressError> {
    let notes = pipeline::check_rules(model, recipe)?;
    let Plan { mut tasks, skipped } = pipeline::plan(model, recipe);
    let target = recipe.target().map(|target| pipeline::target_bytes(target, model));
    let calibrates = recipe.calibrates();
    let calibration_bytes = calibrates.then(|| memory_bytes(model, recipe, &tasks, LIMITS)).transpose()?;
    if target.is_some() {
        // Calibration chooses these for the size, from the data.
        for task in tasks.iter_mut().filter(|task| task.weight.role == Role::Product) {
            (task.settings.prune, task.settings.quantize) = (None, None);
        }
    }
    let layers: Vec<LayerEstimate> = tasks.iter().map(layer).collect();
    let mut kept: Vec<Kept> = skipped.iter().map(|&(index, reason)| pipeline::kept_row(model, index, reason)).collect();
    kept.extend_from_slice(model.kept());
    let layer_bytes: u64 = layers.iter().map(|layer| layer.compressed_bytes_at_most).sum();
    let entries = (layers.len() + kept.len()) as u64;
    // Quotes of the recipe are escaped in the metadata.
    let container_bytes = CONTAINER_BYTES + ENTRY_BYTES * entries + 2 * recipe.to_json().len() as u64;
    let original_bytes: u64 = layers.iter().map(|layer| layer.original_bytes).sum();
    let bound_bytes = layer_bytes + model.size_bytes().saturating_sub(original_bytes) + container_bytes;
    Ok(Estimate {
        source_bytes: model.size_bytes(),
        artifact_bytes_at_most: target.map_or(bound_bytes, |target| bound_bytes.min(target)),
        calibration_bytes,
        weights: layers.iter().map(|layer| layer.weights).sum(),
        layers,
        kept,
        notes,
    })
}

/// Whether what `recipe` lets change of `model` can be calibrated to a size within the memory that is allowed.
pub fn can_calibrate(model: &Model, recipe: &Recipe) -> bool {
    let over = serde_json::json!({ "target": { "ratio": 2 }, "finetune": null });
    recipe.with(&over).is_ok_and(|recipe| estimate(model, &recipe).is_ok())
}

fn layer(task: &Task) -> LayerEstimate {
    let (weight, settings) = (task.weight, &task.settings);
    let weights = task.elements();
    let original_bytes = weights * weight.dtype.size_bytes() as u64;
    let sparsity = settings.prune.map_or(0.0, |prune| match prune.pattern {
        Some(pattern) => 1.0 - pattern.keep() as f64 / pattern.of() as f64,
        None => prune.sparsity.get(),
    });
    let levels = settings.quantize.map(|quantize| levels_of(&quantize.quantizer));
    LayerEstimate {
        name: weight.name.clone(),
        op: weight.op.clone(),
        shape: weight.dims.clone(),
        weights,
        original_bytes,
        criterion: settings.prune.map(|prune| prune.criterion),
        sparsity,
        scope: settings.prune.map(|prune| prune.scope),
        method: settings.quantize.map(|quantize| method_of(&quantize.quantizer)),
        levels,
        codec: match settings.encode.codec {
            CodecChoice::Auto => None,
            CodecChoice::Only(codec) => Some(codec),
        },
        compressed_bytes_at_most: bound::record_bytes(task, levels),
    }
}

fn method_of(quantizer: &Quantizer) -> Method {
    match quantizer {
        Quantizer::Cws(_) => Method::Cws,
        Quantizer::Pws(_) => Method::Pws,
        Quantizer::Uq(_) => Method::Uq,
        Quantizer::Ecsq(_) => Method::Ecsq,
    }
}

fn levels_of(quantizer: &Quantizer) -> usize {
    match quantizer {
        Quantizer::Cws(cws) => cws.levels.get(),
        Quantizer::Pws(pws) => pws.levels.get(),
        Quantizer::Uq(uq) => uq.levels.get(),
        Quantizer::Ecsq(ecsq) => match ecsq.budget {
            Budget::Levels(levels) => levels.get(),
            Budget::Bits(_) => MAX_LEVELS - 1,
        },
    }
}
