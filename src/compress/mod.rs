//! Recipe in, artifact and report out: the pipeline.
//!
//! Each weight goes through read, prune, share, encode and record on one thread; as many are on the way as the pool has
//! threads, so memory follows the largest tensor and not the model. What several layers decide together (global
//! thresholds, unified codebooks) is fitted in passes before. Layers whose units may change places wait on disk between
//! sharing and encoding, until the order of each group of units is known.

mod adapt;
mod bound;
mod estimate;
mod joint;
mod layer;
mod meter;
#[cfg(feature = "service")]
mod methods;
mod pipeline;
mod recipe;
mod report;
mod spool;
mod target;
#[cfg(test)]
mod tests;
mod units;

use crate::artifact::ArtifactError;
use crate::calibrate::CalibrateError;
use crate::codec::EncodeError;
use crate::evaluate::{EvaluateError, TargetKind};
#[cfg(feature = "finetune")]
use crate::finetune::TuneError;
use crate::infer::InferError;
use crate::model::ModelError;
use crate::progress::Cancelled;
use crate::quantize::QuantizeError;

pub use adapt::{TrainingData, TrainingStore, can_finetune, tuned_file};
pub use estimate::{Estimate, LayerEstimate, can_calibrate, estimate};
#[cfg(feature = "service")]
pub use methods::{MethodDescription, Methods, PresetDescription, methods};
pub use pipeline::{compress, compress_with};
pub use recipe::{
    Calibrate, CodebookScope, CodecChoice, Encode, EncodeFields, Finetune, FreeUnits, Glob, Goal, ImageChanges,
    LayerRule, LayerSettings, LossKind, OpRule, OptimizerKind, Plain, Preset, PruneFields, PruneStage, Quantize,
    QuantizeFields, QuantizeStage, RateSchedule, Recipe, RecipeError, Rounding, Stage, Target, Weighting,
};
pub use report::{
    CalibratedLayer, Calibration, CodebookReport, CurvePoint, EpochReport, LayerReport, Report, TrainingStage,
};
pub use units::UnitGroupReport;

/// Layers that an error names, of many.
const MOST_NAMED: usize = 8;

/// Why a model could not be compressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Rules of the recipe that apply to no layer of this model: most likely typing errors.
    #[error(
        "the recipe names what the model does not have: {}; its layers are {}{}", .entries.join(", "),
        .layers.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", "),
        if .layers.len() > MOST_NAMED { ", ..." } else { "" }
    )]
    Unmatched {
        /// The rules, as the recipe writes them.
        entries: Vec<String>,
        /// Names and operator types of the layers there are.
        layers: Vec<String>,
    },
    /// A NaN or an infinity in a tensor chosen for compression.
    #[error("tensor {tensor:?} is not finite at element {index}")]
    NonFinite {
        /// The weight's name.
        tensor: String,
        /// Counted in the order of the file.
        index: usize,
    },
    /// The recipe calibrates or fine-tunes, and there are no data to do it with.
    #[error(
        "the recipe calibrates or fine-tunes, which needs data, and none were given: `data` of a job, beside its evaluation, or --data of a command"
    )]
    NeedsData,
    /// The recipe fine-tunes, and this build cannot.
    #[error("the recipe fine-tunes, and this build was made without the feature finetune")]
    WithoutFinetuning,
    /// A loss for other targets than there are.
    #[error("the loss {} does not fit {}", name_of(*.wanted), target_name(*.found))]
    LossNeeds {
        /// What the recipe asks for.
        wanted: LossKind,
        /// What the targets of the training split are.
        found: Option<TargetKind>,
    },
    /// A graph that takes a fixed number of samples at a time.
    #[error("fine-tuning needs a graph that takes any number of samples or one at a time, and this one takes {batch}")]
    FixedBatch {
        /// Samples at a time.
        batch: usize,
    },
    /// Mixed samples, of which only the original's outputs are known, and a loss that does not look at those.
    #[error("finetune.mixup learns from version 0's outputs: its loss is distillation")]
    MixupNeedsTeacher,
    /// Images are to be changed where there are none.
    #[error(
        "finetune.augment needs an input of float32 whose samples are images, with two axes or three, and there is none"
    )]
    NoImages,
    /// The network could not be trained.
    #[cfg(feature = "finetune")]
    #[error(transparent)]
    Finetune(TuneError),
    /// The network could not be calibrated.
    #[error(transparent)]
    Calibrate(CalibrateError),
    /// No setting makes the file as small as it should be.
    #[error("no file of at most {target_bytes} bytes was found, the smallest takes {smallest_bytes}")]
    Target {
        /// The bytes that the recipe's target allows.
        target_bytes: u64,
        /// The smallest file that was written on the way.
        smallest_bytes: u64,
    },
    /// The samples to calibrate or to train on could not be read.
    #[error(transparent)]
    Data(EvaluateError),
    /// The uploaded file could not be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The weights of a layer could not be shared.
    #[error("tensor {tensor:?}: {source}")]
    Quantize {
        /// The weight's name.
        tensor: String,
        /// Why.
        source: QuantizeError,
    },
    /// The weights of a layer could not be encoded.
    #[error("tensor {tensor:?}: {source}")]
    Encode {
        /// The weight's name.
        tensor: String,
        /// Why.
        source: EncodeError,
    },
    /// The artifact could not be written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// The word for a loss in a recipe.
fn name_of(loss: LossKind) -> &'static str {
    match loss {
        LossKind::CrossEntropy => "cross_entropy",
        LossKind::Mse => "mse",
        LossKind::Distillation => "distillation",
    }
}

fn target_name(target: Option<TargetKind>) -> &'static str {
    match target {
        Some(TargetKind::Class) => "targets of kind class",
        Some(TargetKind::Value) => "targets of kind value",
        None => "data without targets",
    }
}

#[cfg(feature = "finetune")]
impl From<TuneError> for CompressError {
    fn from(error: TuneError) -> Self {
        match error {
            TuneError::Cancelled(_) => Self::Cancelled,
            TuneError::Samples(source) => match source.downcast() {
                Ok(error) => Self::Data(*error),
                Err(source) => Self::Finetune(TuneError::Samples(source)),
            },
            error => Self::Finetune(error),
        }
    }
}

impl From<CalibrateError> for CompressError {
    fn from(error: CalibrateError) -> Self {
        match error {
            CalibrateError::Cancelled => Self::Cancelled,
            error => Self::Calibrate(error),
        }
    }
}

impl From<InferError> for CompressError {
    fn from(error: InferError) -> Self {
        Self::Calibrate(error.into())
    }
}

impl From<Cancelled> for CompressError {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl CompressError {
    /// Whether the machine is at fault (a full disk, say), and not the model, the recipe or the data.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Model(error) | Self::Calibrate(CalibrateError::Infer(InferError::Model(error))) => {
                matches!(error, ModelError::Io(_))
            }
            Self::Artifact(error) => matches!(error, ArtifactError::Io(_)),
            Self::Data(error) => matches!(error, EvaluateError::Io(_) | EvaluateError::File(ModelError::Io(_))),
            _ => false,
        }
    }

    /// A codec's error with the name of the layer; a cancellation stays one.
    fn encode(tensor: &str, source: EncodeError) -> Self {
        match source {
            EncodeError::Cancelled => Self::Cancelled,
            source => Self::Encode { tensor: tensor.to_owned(), source },
        }
    }

    /// A quantiser's error with the name of the layer; a cancellation stays one.
    fn quantize(tensor: &str, source: QuantizeError) -> Self {
        match source {
            QuantizeError::Cancelled => Self::Cancelled,
            source => Self::Quantize { tensor: tensor.to_owned(), source },
        }
    }
}
