//! What a parent and its child say to each other: one JSON object a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::infer::{Array, Datatype, Fault, HeldWeight, InferError};
use crate::jobs::ExecuteError;
use crate::jobs::predictors::LoadRequest;
use crate::model::Port;

use super::Limits;

/// Bytes of the shared file that belong to one prediction: more than anything takes. It has no holes to fill, as only what is
/// written takes memory.
pub(super) const SLOT_BYTES: u64 = 1 << 40;

/// From the parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// First, and once: what the child may have, in seconds of processor time too.
    Begin { limits: Limits, processor_seconds: Option<u64> },
    /// Do this piece of work.
    Work { name: String, work: Value },
    /// Stop it.
    Cancel,
    /// Hold this version.
    Load(LoadRequest),
    /// Predict with it: the inputs lie in `slot` of the shared file, one behind the other.
    Predict { slot: u64, inputs: Vec<Described> },
}

/// From the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The limits hold.
    Ready {
        has_network: bool,
    },
    Progress {
        fraction: f64,
        stage: String,
        message: String,
    },
    Done(Result<Value, ExecuteError>),
    Loaded(Result<Description, Failure>),
    /// The outputs lie in `slot` of the shared file, one behind the other.
    Predicted {
        slot: u64,
        outputs: Result<Vec<Described>, Failure>,
    },
}

/// A loaded version, but for its weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    pub(super) weights: Vec<HeldWeight>,
    pub(super) weights_resident_bytes: u64,
    pub(super) takes_any_batch: bool,
    pub(super) is_batched: bool,
}

/// An array, but for its elements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) dims: Vec<usize>,
}

/// An [`InferError`] that has travelled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Failure {
    fault: Fault,
    detail: String,
}

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        Self { fault: error.fault(), detail: error.to_string() }
    }
}

impl From<Failure> for InferError {
    fn from(Failure { fault, detail }: Failure) -> Self {
        Self::Elsewhere { fault, detail }
    }
}

impl Described {
    pub(super) fn of(name: &str, array: &Array) -> Self {
        Self { name: name.to_owned(), datatype: array.datatype().name().to_owned(), dims: array.dims.clone() }
    }

    /// Its element type and the bytes of its elements; `None` where that cannot be.
    pub(super) fn layout(&self) -> Option<(Datatype, usize)> {
        let datatype: Datatype = self.datatype.parse().ok()?;
        let bytes = self.dims.iter().try_fold(datatype.size_bytes(), |bytes, &dim| bytes.checked_mul(dim))?;
        Some((datatype, bytes))
    }
}
