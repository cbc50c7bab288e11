//! A graph ready to run.

use crate::artifact::Artifact;
use crate::model::{Model, Port};

use super::{Array, InferError, Residency};

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
