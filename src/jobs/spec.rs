//! What a job is asked to do, as it stands in `POST /api/v1/jobs`, and what it answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::compress::{Recipe, Report};
use crate::evaluate::{DataMap, Metric};
use crate::storage::NewMetric;

/// A job to queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobSpec {
    /// Compresses the upload into a new version.
    Compress(CompressSpec),
    /// Measures a version.
    Evaluate(EvaluateSpec),
}

/// Kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    Compress,
    Evaluate,
}

impl JobKind {
    /// The word for it, in JSON, in the database and in labels of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compress => "compress",
            Self::Evaluate => "evaluate",
        }
    }
}

/// Compresses version 0 of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompressSpec {
    /// The model's name.
    pub model: String,
    /// How to compress.
    pub recipe: Recipe,
    /// Measures version 0 and the new version, on the same samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationSpec>,
    /// Makes the new version the model's default.
    #[serde(default)]
    pub make_default: bool,
    /// A higher one is claimed first.
    #[serde(default)]
    pub priority: i32,
}

/// Measures one version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSpec {
    /// The model's name.
    pub model: String,
    /// The default version when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What to measure, on what.
    pub evaluation: EvaluationSpec,
    /// A higher one is claimed first.
    #[serde(default)]
    pub priority: i32,
}

impl JobSpec {
    /// Which kind it is.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Compress(_) => JobKind::Compress,
            Self::Evaluate(_) => JobKind::Evaluate,
        }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        match self {
            Self::Compress(spec) => &spec.model,
            Self::Evaluate(spec) => &spec.model,
        }
    }

    /// What to measure, if anything.
    pub fn evaluation(&self) -> Option<&EvaluationSpec> {
        match self {
            Self::Compress(spec) => spec.evaluation.as_ref(),
            Self::Evaluate(spec) => Some(&spec.evaluation),
        }
    }

    /// A higher one is claimed first.
    pub fn priority(&self) -> i32 {
        match self {
            Self::Compress(spec) => spec.priority,
            Self::Evaluate(spec) => spec.priority,
        }
    }
}

/// What to measure, and on which data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSpec {
    /// All that apply to the data when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// The dataset, which must be named, and how its arrays map to the graph.
    pub data: DataMap,
}

/// What a job that succeeded produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobResult {
    /// The version that was made, or measured.
    pub version: i64,
    /// Sizes, of a compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What was measured; of version 0 (before) and of `version` (after).
    pub metrics: Vec<NewMetric>,
}
