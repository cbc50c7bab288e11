//! A loaded version: in this process, or in a child.

use crate::infer::{Array, HeldWeight, InferError, Predictor};
use crate::model::Port;

use super::isolation::ChildPredictor;

/// What a child takes beside weights, in bytes: a round figure above what one of a small network was seen to take.
const CHILD_BYTES: u64 = 32 << 20;

/// Runs a version's graph, wherever it is held. As [`Predictor`].
pub struct Serving(Place);

enum Place {
    Here(Box<Predictor>),
    Child(ChildPredictor),
}

impl From<Predictor> for Serving {
    fn from(predictor: Predictor) -> Self {
        Self(Place::Here(Box::new(predictor)))
    }
}

impl From<ChildPredictor> for Serving {
    fn from(predictor: ChildPredictor) -> Self {
        Self(Place::Child(predictor))
    }
}

impl Serving {
    /// What the graph reads, in graph order.
    pub fn inputs(&self) -> &[Port] {
        match &self.0 {
            Place::Here(predictor) => predictor.inputs(),
            Place::Child(predictor) => predictor.inputs(),
        }
    }

    /// What the graph returns, in graph order.
    pub fn outputs(&self) -> &[Port] {
        match &self.0 {
            Place::Here(predictor) => predictor.outputs(),
            Place::Child(predictor) => predictor.outputs(),
        }
    }

    /// Runs one batch: here on the current rayon pool; in a child on its own, and blocks.
    ///
    /// # Errors
    /// As [`Predictor::run`].
    pub fn run(&self, inputs: Vec<(String, Array)>) -> Result<Vec<(String, Array)>, InferError> {
        match &self.0 {
            Place::Here(predictor) => predictor.run(inputs),
            Place::Child(predictor) => predictor.run(&inputs),
        }
    }

    /// Bytes of the weights in memory.
    pub fn weights_resident_bytes(&self) -> u64 {
        match &self.0 {
            Place::Here(predictor) => predictor.weights_resident_bytes(),
            Place::Child(predictor) => predictor.weights_resident_bytes(),
        }
    }

    /// How each weight is held.
    pub fn weights(&self) -> &[HeldWeight] {
        match &self.0 {
            Place::Here(predictor) => predictor.weights(),
            Place::Child(predictor) => predictor.weights(),
        }
    }

    /// What it takes beside its weights, in bytes: a process, its threads and the engine.
    pub(super) fn overhead_bytes(&self) -> u64 {
        match &self.0 {
            Place::Here(_) => 0,
            Place::Child(_) => CHILD_BYTES,
        }
    }

    /// Whether it is held in this process.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.0, Place::Here(_))
    }

    /// Whether it has to be loaded again: its child is gone.
    pub(super) fn is_over(&self) -> bool {
        match &self.0 {
            Place::Here(_) => false,
            Place::Child(predictor) => predictor.is_over(),
        }
    }
}
