//! Looks at uploaded files before they are stored.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::evaluate::Dataset;
use crate::infer::unsupported_operators;
use crate::jobs::{ExecuteError, Refusal, Work, holds_nul, to_json};
use crate::model::{Format, Kept, Model, ModelError, Port};
use crate::progress::Progress;
use crate::storage::{ArraySummary, WeightSummary};

use super::evaluate::refused_or_failed;

/// Opens a model file and describes it. Reads no weight.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InspectModel {
    pub path: PathBuf,
}

/// What a model file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelDescription {
    pub format: Format,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub weights: Vec<WeightSummary>,
    pub kept: Vec<Kept>,
    pub unsupported_operators: Vec<String>,
}

impl Work for InspectModel {
    const NAME: &'static str = "inspect_model";

    type Answer = ModelDescription;

    fn run(&self, _progress: &dyn Progress) -> Result<ModelDescription, ExecuteError> {
        let model = open_model(&self.path)?;
        let weights = model.weights().iter().map(|weight| WeightSummary {
            name: weight.name.clone(),
            op: weight.op.clone(),
            shape: weight.dims.clone(),
            dtype: weight.dtype.name().to_owned(),
            parameters: weight.dims.iter().product::<usize>() as u64,
            role: weight.role.clone(),
        });
        storable(
            Refusal::InvalidModel,
            ModelDescription {
                format: model.format(),
                inputs: model.inputs().to_vec(),
                outputs: model.outputs().to_vec(),
                weights: weights.collect(),
                kept: model.kept().to_vec(),
                unsupported_operators: unsupported_operators(&model),
            },
        )
    }
}

/// Refuses a description that the databases cannot both hold.
fn storable<T: Serialize>(refusal: Refusal, found: T) -> Result<T, ExecuteError> {
    if holds_nul(&to_json(&found)) {
        return Err(refusal.because("a name in the file holds the character NUL"));
    }
    Ok(found)
}

/// Opens a model file; a fault of the file is the user's.
pub(super) fn open_model(path: &Path) -> Result<Model, ExecuteError> {
    Model::open(path).map_err(|error| match error {
        ModelError::Io(error) => ExecuteError::failed(error),
        error => Refusal::InvalidModel.because(error),
    })
}

/// Opens a dataset file and describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InspectDataset {
    pub path: PathBuf,
}

/// What a dataset file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetDescription {
    /// `npz` or `safetensors`.
    pub format: Format,
    /// Common first extent of all arrays.
    pub samples: usize,
    pub arrays: Vec<ArraySummary>,
}

impl Work for InspectDataset {
    const NAME: &'static str = "inspect_dataset";

    type Answer = DatasetDescription;

    fn run(&self, _progress: &dyn Progress) -> Result<DatasetDescription, ExecuteError> {
        let dataset = Dataset::open(&self.path).map_err(refused_or_failed)?;
        let samples = dataset.samples().map_err(|error| Refusal::InvalidDataset.because(error))?;
        let arrays = dataset.arrays().map(|array| ArraySummary {
            name: array.name.to_owned(),
            dtype: array.dtype.to_owned(),
            shape: array.dims.to_vec(),
        });
        storable(
            Refusal::InvalidDataset,
            DatasetDescription { format: dataset.format(), samples, arrays: arrays.collect() },
        )
    }
}
