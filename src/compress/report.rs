//! What a compression measured: every byte of the artifact, and where it went.

use serde::{Deserialize, Serialize};

use super::UnitGroupReport;
use super::layer::{LayerMeasures, Task};
use crate::artifact::Sizes;
use crate::calibrate::RatePoint;
use crate::codec::CodecId;
use crate::model::{Family, Kept, Model, Role};

/// Sizes of a compression, in total and per layer.
///
/// `artifact_bytes` is the file that a user downloads, and the sum of `compressed_bytes` of the layers, `size_bytes` of
/// the codebooks, `plain_bytes`, `graph_bytes` and `container_bytes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Report {
    /// The uploaded file.
    pub source_bytes: u64,
    /// The artifact, every byte of it.
    pub artifact_bytes: u64,
    /// `source_bytes / artifact_bytes`.
    pub ratio: f64,
    /// Weights in all compressed layers.
    pub weights: u64,
    /// Bits of the compressed layers and their codebooks, headers included, for each weight.
    pub bits_per_weight: f64,
    /// The papers' figure: bytes of all streams and codebooks / (4 x weights).
    pub psi: f64,
    /// Fraction of the weights that are +0.0, or were taken out with a hidden unit.
    pub sparsity: f64,
    /// One row per compressed weight, in file order.
    pub layers: Vec<LayerReport>,
    /// One row per codebook shared by several layers.
    pub codebooks: Vec<CodebookReport>,
    /// What stays as it is, and why.
    pub kept: Vec<Kept>,
    /// Groups of hidden units that the recipe let change places.
    #[serde(default)]
    pub unit_groups: Vec<UnitGroupReport>,
    /// What each epoch of fine-tuning was like; empty without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub training: Vec<EpochReport>,
    /// What calibration saw and chose; none where the recipe asks for no method that looks at a layer's inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Remarks for people, e.g. on rules of the recipe that applied to nothing.
    pub notes: Vec<String>,
    /// The record of the graph, small constants inside.
    pub graph_bytes: u64,
    /// The safetensors header: entries, recipe, digest of the source.
    pub container_bytes: u64,
    /// Records of the tensors that are kept outside the graph.
    pub plain_bytes: u64,
    /// Time the compression took.
    pub seconds: f64,
}

/// What an epoch of fine-tuning was like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct EpochReport {
    /// After what it was.
    pub stage: TrainingStage,
    /// Counted from 1 in its stage.
    pub epoch: u64,
    /// Mean over the training split, each batch before the step that it led to.
    pub loss: f64,
    /// Mean over the validation split; null without one, as are the next two.
    pub validation_loss: Option<f64>,
    /// On the validation split, for class targets.
    pub accuracy: Option<f64>,
    /// On the validation split, for real targets.
    pub mse: Option<f64>,
    /// Fraction of the weights that are zero.
    pub sparsity: f64,
}

/// After what an epoch of fine-tuning was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TrainingStage {
    /// After pruning, or while pruning goes on.
    Pruned,
    /// After sharing.
    Shared,
}

impl Report {
    /// The note on figures that flatter.
    pub const MEASURED_ON_TRAINING: &'static str =
        "measured on all samples, those that it was calibrated or trained on among them: name a split to measure on";
}

impl TrainingStage {
    /// The word for it, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pruned => "pruned",
            Self::Shared => "shared",
        }
    }
}

/// What calibration saw and chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Calibration {
    /// Samples that were run.
    pub samples: u64,
    /// Memory that it was bound to beside the model: samples, activations, copies of the weights, the largest layer's statistics with
    /// the work on them, weights that unified codebooks were fitted to.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The layers that a product multiplies by, in the order in which the graph reaches them.
    pub layers: Vec<CalibratedLayer>,
}

/// One layer that was pruned or shared with its inputs in view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct CalibratedLayer {
    /// The weight tensor's name.
    pub name: String,
    /// Columns of inputs that its statistics are of: samples, or positions of a convolution.
    pub columns: u64,
    /// Squared change of its outputs on the calibration set, as a fraction of their energy, damping included.
    pub output_error: f64,
    /// Fraction of its weights that are zero.
    pub sparsity: f64,
    /// The bias that takes up the change in the mean; none where the layer has none of its own, or was told not to.
    pub corrected_bias: Option<String>,
    /// Step of the uniform grid that a target size chose for it.
    pub step: Option<f64>,
    /// What it was estimated to lose at each sparsity, where sparsities were chosen for the whole network.
    pub curve: Vec<CurvePoint>,
    /// The settings among which a target size chose, each with its bits and its error.
    pub points: Vec<RatePoint>,
}

/// A sparsity and what it costs a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct CurvePoint {
    /// Fraction of the weights that are zero.
    pub sparsity: f64,
    /// Squared change of the outputs, as a fraction of their energy.
    pub output_error: f64,
}

/// A codebook shared by several layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct CodebookReport {
    /// Which layers share it: `dense` or `convolution`.
    #[cfg_attr(feature = "service", schema(value_type = String))]
    pub family: Family,
    /// Values, zero included.
    pub levels: usize,
    /// Its record in the artifact.
    pub size_bytes: u64,
}

/// One compressed weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct LayerReport {
    /// The weight tensor's name.
    pub name: String,
    /// Operator type of its readers.
    pub op: String,
    /// Dimensions in the uploaded model.
    pub shape: Vec<usize>,
    /// How predictions use it.
    pub role: Role,
    /// Number of weights.
    pub weights: u64,
    /// In the uploaded file's type.
    pub original_bytes: u64,
    /// Its record in the artifact: stream, own codebook, header and checksum (a shared codebook is a row of its own).
    pub compressed_bytes: u64,
    /// Of these, the stream: codes, dictionary, indices and block table.
    pub stream_bytes: u64,
    /// Of these, its own codebook.
    pub codebook_bytes: u64,
    /// `original_bytes / compressed_bytes`.
    pub ratio: f64,
    /// Bits of `compressed_bytes` for each weight.
    pub bits_per_weight: f64,
    /// The papers' figure: stream and own codebook / (4 x weights).
    pub psi: f64,
    /// Fraction of the weights that are +0.0, or were taken out with a hidden unit.
    pub sparsity: f64,
    /// Distinct values, zero included.
    pub distinct_values: usize,
    /// How it is written.
    pub codec: CodecId,
    /// Signal to noise of the weights in dB: 10 log10(sum w^2 / sum (w - q)^2); null when nothing was lost.
    pub weight_snr_db: Option<f64>,
    /// A remark for people, e.g. why it is stored raw.
    pub note: Option<String>,
}

/// What the pipeline hands over.
pub(super) struct Measured<'a> {
    pub tasks: &'a [Task<'a>],
    /// In the order of the tasks.
    pub layers: &'a [LayerMeasures],
    pub sizes: &'a Sizes,
    pub kept: Vec<Kept>,
    pub notes: Vec<String>,
    pub calibration: Option<Calibration>,
    pub unit_groups: Vec<UnitGroupReport>,
    pub training: Vec<EpochReport>,
}

/// Draws up the report.
pub(super) fn build(model: &Model, measured: Measured, seconds: f64) -> Report {
    let Measured { tasks, layers: measures, sizes, kept, notes, calibration, training, unit_groups } = measured;
    let codebooks = shared_codebooks(tasks, sizes);
    let rows = tasks.iter().zip(measures).zip(&sizes.weight_bytes);
    let layers: Vec<LayerReport> = rows.map(|((task, layer), &bytes)| layer_row(task, layer, bytes)).collect();
    let weights = layers.iter().map(|layer| layer.weights).sum();
    let record_bytes = sizes.weight_bytes.iter().chain(&sizes.codebook_bytes).sum();
    let own_bytes: u64 = layers.iter().map(|layer| layer.stream_bytes + layer.codebook_bytes).sum();
    let zeros: u64 = measures.iter().map(|layer| layer.zeros).sum();
    Report {
        source_bytes: model.size_bytes(),
        artifact_bytes: sizes.artifact_bytes,
        ratio: fraction(model.size_bytes(), sizes.artifact_bytes),
        weights,
        bits_per_weight: 8.0 * fraction(record_bytes, weights),
        psi: fraction(own_bytes + sizes.codebook_bytes.iter().sum::<u64>(), 4 * weights),
        sparsity: fraction(zeros, weights),
        layers,
        codebooks,
        kept,
        unit_groups,
        training,
        calibration,
        notes,
        graph_bytes: sizes.graph_bytes,
        container_bytes: sizes.container_bytes,
        plain_bytes: sizes.plain_bytes,
        seconds,
    }
}

fn layer_row(task: &Task, layer: &LayerMeasures, compressed_bytes: u64) -> LayerReport {
    let weight = task.weight;
    let weights = task.elements();
    let original_bytes = weights * weight.dtype.size_bytes() as u64;
    LayerReport {
        name: weight.name.clone(),
        op: weight.op.clone(),
        shape: weight.dims.clone(),
        role: weight.role.clone(),
        weights,
        original_bytes,
        compressed_bytes,
        stream_bytes: layer.stream_bytes,
        codebook_bytes: layer.codebook_bytes,
        ratio: fraction(original_bytes, compressed_bytes),
        bits_per_weight: 8.0 * fraction(compressed_bytes, weights),
        psi: fraction(layer.stream_bytes + layer.codebook_bytes, 4 * weights),
        sparsity: fraction(layer.zeros, weights),
        distinct_values: layer.distinct_values,
        codec: layer.codec,
        weight_snr_db: layer.weight_snr_db,
        note: layer.note.clone(),
    }
}

fn shared_codebooks(tasks: &[Task], sizes: &Sizes) -> Vec<CodebookReport> {
    let row = |(index, &size_bytes): (usize, &u64)| {
        let unified = tasks.iter().filter_map(|task| task.unified.as_ref()).find(|u| u.index == Some(index))?;
        Some(CodebookReport { family: unified.family, levels: unified.codebook.len(), size_bytes })
    };
    sizes.codebook_bytes.iter().enumerate().filter_map(row).collect()
}

/// `a / b`, and 0 where there is nothing to divide by.
fn fraction(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}
