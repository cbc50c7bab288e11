//! What a recipe would do to a model, worked out without reading a weight: what a dry run answers.

use serde::{Deserialize, Serialize};

use super::layer::Task;
use super::pipeline::{self, Plan};
use super::{CodecChoice, CompressError, Recipe};
use crate::codec::CodecId;
use crate::model::{Kept, Model};
use crate::prune::{Criterion, Scope};
use crate::quantize::{Budget, Method, Quantizer};
use crate::tensor::MAX_LEVELS;

/// Bytes that a record, its name and its share of the container take, roughly.
const RECORD_BYTES: u64 = 100;

/// A recipe checked against a model, resolved for every layer, with rough sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Estimate {
    /// The uploaded file.
    pub source_bytes: u64,
    /// Rough size of the artifact if the layers compress as badly as these settings allow.
    pub artifact_bytes_at_most: u64,
    /// Weights in all layers that would be compressed.
    pub weights: u64,
    /// One row per layer that would be compressed.
    pub layers: Vec<LayerEstimate>,
    /// What would stay as it is, and why.
    pub kept: Vec<Kept>,
    /// Remarks for people, e.g. on rules of the recipe that would apply to nothing.
    pub notes: Vec<String>,
}

/// What would happen to one layer.
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
    /// The papers' bound on the size of the layer (HAM or sHAM, the smaller), or its raw size where nothing is shared.
    pub compressed_bytes_at_most: u64,
}

/// Checks `recipe` against `model` and says what [`super::compress`] would do.
///
/// # Errors
/// [`CompressError::Unmatched`] as the compression itself would answer.
pub fn estimate(model: &Model, recipe: &Recipe) -> Result<Estimate, CompressError> {
    let notes = pipeline::check_rules(model, recipe)?;
    let Plan { tasks, skipped } = pipeline::plan(model, recipe);
    let layers: Vec<LayerEstimate> = tasks.iter().map(layer).collect();
    let mut kept: Vec<Kept> = skipped.iter().map(|&(index, reason)| pipeline::kept_row(model, index, reason)).collect();
    kept.extend_from_slice(model.kept());
    let layer_bytes: u64 = layers.iter().map(|layer| layer.compressed_bytes_at_most).sum();
    let original_bytes: u64 = layers.iter().map(|layer| layer.original_bytes).sum();
    Ok(Estimate {
        source_bytes: model.size_bytes(),
        artifact_bytes_at_most: layer_bytes + model.size_bytes().saturating_sub(original_bytes),
        weights: layers.iter().map(|layer| layer.weights).sum(),
        layers,
        kept,
        notes,
    })
}

fn layer(task: &Task) -> LayerEstimate {
    let (weight, settings) = (task.weight, &task.settings);
    let weights = task.elements();
    let original_bytes = weights * weight.dtype.size_bytes() as u64;
    let sparsity = settings.prune.map_or(0.0, |prune| prune.sparsity.get());
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
        compressed_bytes_at_most: RECORD_BYTES + bound_bytes(task, sparsity, levels).min(original_bytes),
    }
}

/// The bounds of the base paper: HAM takes at most 1 + log2 k bits a weight, sHAM as much and an index for each that
/// survives; both a dictionary of 6 words a value.
fn bound_bytes(task: &Task, sparsity: f64, levels: Option<usize>) -> u64 {
    let weights = task.elements() as f64;
    let Some(levels) = levels else { return u64::MAX };
    let k = levels as f64;
    let (rows, cols) = task.weight.layout.shape(&task.weight.dims).unwrap_or((0, 0));
    let index_bits = if cols <= 0xff {
        8.0
    } else if cols <= 0xffff {
        16.0
    } else {
        32.0
    };
    let code_bits = 1.0 + libm::log2(k + 1.0);
    let ham = weights * code_bits;
    let sham = (1.0 - sparsity) * weights * (code_bits + index_bits) + rows as f64 * index_bits;
    ((ham.min(sham) + 6.0 * 32.0 * k) / 8.0) as u64
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
