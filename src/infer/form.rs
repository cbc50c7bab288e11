//! In which form each weight is held while it is served, and how `auto` chooses.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tract_onnx::pb;

use super::product::Held;
use super::{InferError, Residency, measure};
use crate::artifact::{Artifact, Body, StoredTensor};
use crate::codec::CompressedMatrix;
use crate::model::{self, Family, Role, Weight};
use crate::packed::{PackedMatrix, Reuse};

/// How one weight is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As encoded; products decode as they go, look-ups the rows that they are asked for.
    Coded,
    /// As 16-bit entries, or 4- or 8-bit symbols of all cells.
    Packed,
    /// Expanded at load.
    Dense,
}

/// A weight of a loaded version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct HeldWeight {
    pub name: String,
    pub form: Form,
    /// Bytes in memory, a codebook that several weights share apart; of a dense weight, those of its elements as f32.
    pub bytes: u64,
}

impl HeldWeight {
    pub(super) fn of(name: &str, held: &Held) -> Self {
        let form = match held {
            Held::Coded(_) => Form::Coded,
            Held::Packed(_) => Form::Packed,
        };
        Self { name: name.to_owned(), form, bytes: held.own_bytes() }
    }
}

/// The weights of an artifact that our operators can take as they are, and the forms made of them so far.
pub(super) struct Forms<'a> {
    pub(super) artifact: &'a Artifact,
    tensors: HashMap<&'a str, &'a StoredTensor>,
}

impl<'a> Forms<'a> {
    pub(super) fn new(artifact: &'a Artifact) -> Self {
        let tensors = artifact.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { artifact, tensors }
    }

    /// `weight` in `form`, or in the nearest one that can hold it: a matrix of raw values, of more than 256 levels, or one
    /// that some node multiplies by the other way round stays coded. `None` where it has to be expanded.
    ///
    /// # Errors
    /// Those of reading the artifact.
    pub(super) fn hold(&self, weight: &Weight, form: Form) -> Result<Option<Held>, InferError> {
        let Some(tensor) = self.tensors.get(weight.name.as_str()).filter(|tensor| fits(tensor, weight)) else {
            return Ok(None);
        };
        if form == Form::Dense {
            return Ok(None);
        }
        let Some(matrix) = self.artifact.matrix(tensor)? else { return Ok(None) };
        Ok(Some(if form == Form::Packed { packed(matrix, weight) } else { Held::Coded(Arc::new(matrix)) }))
    }
}

/// Packs `matrix` where that can be done.
pub(super) fn packed(matrix: CompressedMatrix, weight: &Weight) -> Held {
    if weight.uses.iter().any(|usage| usage.transposed) {
        return Held::Coded(Arc::new(matrix));
    }
    let reuse = match (weight.family, &weight.role) {
        // Equal channels of a convolution may read different groups.
        (Family::Convolution, _) => Reuse::Nothing,
        // A row that is looked up is read on its own.
        (Family::Dense, Role::Lookup) => Reuse::Copies,
        (Family::Dense, _) => Reuse::Differences,
    };
    match PackedMatrix::from_compressed(&matrix, reuse) {
        Ok(packed) => Held::Packed(Arc::new(packed)),
        Err(_) => Held::Coded(Arc::new(matrix)),
    }
}

/// Whether a stored tensor is encoded as the matrix that the graph multiplies by.
fn fits(tensor: &StoredTensor, weight: &Weight) -> bool {
    matches!(&tensor.body, Body::Encoded { layout, .. } if *layout == weight.layout) && tensor.dims == weight.dims
}

/// The form of each weight of a version, by name; those not named are dense.
pub(super) type Choice = HashMap<String, Form>;

/// The same form for all weights of `graph`; for `auto`, whichever is fastest within `budget_bytes`.
///
/// # Errors
/// Those of reading the artifact.
pub(super) fn choose(
    forms: &Forms<'_>,
    graph: &pb::ModelProto,
    residency: Residency,
    budget_bytes: Option<u64>,
) -> Result<Choice, InferError> {
    let (weights, _) = model::analyze(graph);
    let weights: Vec<Weight> = weights.into_iter().filter(|weight| weight.role.is_compressed()).collect();
    let all = |form| weights.iter().map(|weight| (weight.name.clone(), form)).collect();
    match residency {
        Residency::Coded => Ok(all(Form::Coded)),
        Residency::Packed => Ok(all(Form::Packed)),
        Residency::Dense => Ok(all(Form::Dense)),
        Residency::Auto => {
            let mut candidates = Vec::new();
            for weight in &weights {
                candidates.push((weight.name.clone(), measure::candidates(forms, graph, weight)?));
            }
            Ok(fastest_within(candidates, budget_bytes.unwrap_or(u64::MAX)))
        }
    }
}

/// What a form of one weight costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) form: Form,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

/// Memory is not spent on less than this share of an operator's time: measurements vary by about as much.
const LEAST_GAIN: f64 = 0.1;

/// Begins with the smallest form of each weight, and takes the step that saves most time for a byte as long as one fits.
fn fastest_within(layers: Vec<(String, Vec<Candidate>)>, budget_bytes: u64) -> Choice {
    let smallest = |forms: &[Candidate]| forms.iter().copied().min_by_key(|form| form.bytes);
    let mut chosen: Vec<Candidate> = layers.iter().filter_map(|(_, forms)| smallest(forms)).collect();
    let layers: Vec<_> = layers.into_iter().filter(|(_, forms)| !forms.is_empty()).collect();
    let mut bytes: u64 = chosen.iter().map(|form| form.bytes).sum();
    loop {
        let steps =
            layers.iter().enumerate().flat_map(|(layer, (_, forms))| forms.iter().map(move |form| (layer, *form)));
        let gain = |&(layer, form): &(usize, Candidate)| {
            let now: Candidate = chosen[layer];
            (now.seconds - form.seconds) / (form.bytes.saturating_sub(now.bytes) + 1) as f64
        };
        let fits = |&(layer, form): &(usize, Candidate)| {
            let now: Candidate = chosen[layer];
            form.seconds < (1.0 - LEAST_GAIN) * now.seconds && bytes - now.bytes + form.bytes <= budget_bytes
        };
        let Some((layer, form)) = steps.filter(fits).max_by(|a, b| gain(a).total_cmp(&gain(b))) else { break };
        bytes = bytes - chosen[layer].bytes + form.bytes;
        chosen[layer] = form;
    }
    layers.into_iter().zip(chosen).map(|((name, _), form)| (name, form.form)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(form: Form, bytes: u64, seconds: f64) -> Candidate {
        Candidate { form, bytes, seconds }
    }

    #[test]
    fn the_fastest_forms_that_fit_are_chosen() {
        let layers = || {
            let of = |times: [f64; 3]| {
                let [coded, packed, dense] = times;
                vec![
                    candidate(Form::Coded, 10, coded),
                    candidate(Form::Packed, 20, packed),
                    candidate(Form::Dense, 100, dense),
                ]
            };
            vec![("a".to_owned(), of([9.0, 5.0, 1.0])), ("b".to_owned(), of([3.0, 2.0, 4.0])), ("c".to_owned(), vec![])]
        };
        let chosen = |budget| {
            let choice = fastest_within(layers(), budget);
            (choice.get("a").copied(), choice.get("b").copied(), choice.get("c").copied())
        };
        assert_eq!(chosen(u64::MAX), (Some(Form::Dense), Some(Form::Packed), None));
        assert_eq!(chosen(110), (Some(Form::Packed), Some(Form::Packed), None));
        assert_eq!(chosen(30), (Some(Form::Packed), Some(Form::Coded), None));
        // Less than the smallest forms take is not to be had.
        assert_eq!(chosen(0), (Some(Form::Coded), Some(Form::Coded), None));
    }
}
