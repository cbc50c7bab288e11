//! Predictions: a graph run on compressed weights.

use std::sync::Arc;

use crate::artifact::Artifact;
use crate::model::{Model, Port};
use serde::{Deserialize, Serialize};

/// How a served version holds its weights in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Residency {
    /// As encoded; products decode as they go.
    #[default]
    Coded,
    /// Expanded at load.
    Dense,
}

/// A named array that goes into or comes out of a graph, or stands in a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub dims: Vec<usize>,
    pub data: ArrayData,
}

/// Row-major elements.
#[derive(Debug, Clone, PartialEq)]
pub enum ArrayData {
    Bool(Vec<bool>),
    U8(Vec<u8>), U16(Vec<u16>), U32(Vec<u32>), U64(Vec<u64>),
    I8(Vec<i8>), I16(Vec<i16>), I32(Vec<i32>), I64(Vec<i64>),
    F16(Vec<half::f16>), F32(Vec<f32>), F64(Vec<f64>),
}

/// A graph ready to run; shared by threads.
pub struct Predictor {}

impl Predictor {
    /// Loads a compressed version. No dense weight is held with [`Residency::Coded`], but those of `Role::Expanded`.
    pub fn from_artifact(artifact: &Artifact, residency: Residency) -> Result<Self, InferError> {
        todo!()
    }
    /// Loads an uploaded model: version 0.
    pub fn from_model(model: &Model) -> Result<Self, InferError> {
        todo!()
    }
    pub fn inputs(&self) -> &[Port] {
        todo!()
    }
    pub fn outputs(&self) -> &[Port] {
        todo!()
    }
    /// Runs one batch. `inputs` in any order by name; all outputs in graph order.
    pub fn run(&self, inputs: Vec<(String, Array)>) -> Result<Vec<(String, Array)>, InferError> {
        todo!()
    }
    pub fn weights_resident_bytes(&self) -> u64 {
        todo!()
    }
}

/// Operators of `model` that predictions lack, each once, sorted; empty when it can be served.
pub fn unsupported_operators(model: &Model) -> Vec<String> {
    todo!()
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    #[error("operator {0} is not supported by predictions")]
    Unsupported(String),
}
