//! What a compression measured.
use serde::{Deserialize, Serialize};

use crate::codec::CodecId;
use crate::model::{Kept, Role};

/// Sizes of a compression, in total and per layer. `artifact_bytes` = the file; every byte counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Report {
    pub source_bytes: u64,
    pub artifact_bytes: u64,
    /// source_bytes / artifact_bytes
    pub ratio: f64,
    /// Weights in all compressed layers.
    pub weights: u64,
    pub bits_per_weight: f64,
    pub sparsity: f64,
    pub layers: Vec<LayerReport>,
    /// One row per codebook shared by several layers.
    pub codebooks: Vec<CodebookReport>,
    pub kept: Vec<Kept>,
    /// Bytes of the deflated graph.
    pub graph_bytes: u64,
    /// Container header and metadata; so that layers + codebooks + plain tensors + graph + container = artifact_bytes.
    pub container_bytes: u64,
    pub plain_bytes: u64,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct CodebookReport {
    pub family: String,
    pub levels: usize,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct LayerReport {
    pub name: String,
    pub op: String,
    pub shape: Vec<usize>,
    pub role: Role,
    pub weights: u64,
    pub original_bytes: u64,
    /// Payload, tensor header and own codebook (a unified codebook is a row of its own).
    pub compressed_bytes: u64,
    pub ratio: f64,
    pub bits_per_weight: f64,
    /// Fraction of +0.0 among the weights.
    pub sparsity: f64,
    pub distinct_values: usize,
    pub codec: CodecId,
    /// Signal to noise of the weights in dB: 10 log10(sum w^2 / sum (w - q)^2); null when lossless.
    pub weight_snr_db: Option<f64>,
    /// Notes for people: why it was kept dense, or skipped.
    pub note: Option<String>,
}
