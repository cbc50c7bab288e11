//! One layer on its way through the pipeline: read, prune, share, encode.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use super::joint::Unified;
use super::meter::Meter;
use super::{CodecChoice, CompressError, Encode, LayerSettings, Rounding, Weighting};
use crate::artifact::CodebookRef;
use crate::calibrate::Problem;
use crate::codec::{self, CodecId, EncodeError, Smallest};
use crate::model::{Model, Weight};
use crate::progress::Progress;
#[cfg(feature = "finetune")]
use crate::progress::Silent;
use crate::prune::Threshold;
use crate::quantize::{Distribution, share_exact};
#[cfg(feature = "finetune")]
use crate::tensor::FloatType;
use crate::tensor::{FloatData, LayerContext, MAX_LEVELS, Matrix, Statistics, Values};

/// Work of the passes of one layer but encoding, in weights: pruning and sharing count one each.
const PASSES: u64 = 2;

/// A weight and what is to be done with it.
pub(super) struct Task<'a> {
    /// Position among the model's weights.
    pub index: usize,
    pub weight: &'a Weight,
    pub settings: LayerSettings,
    /// Found before, where several layers decide it together.
    pub threshold: Option<Threshold>,
    /// Fitted before, where several layers share it.
    pub unified: Option<Arc<Unified>>,
}

impl Task<'_> {
    /// Number of weights.
    pub(super) fn elements(&self) -> u64 {
        self.weight.dims.iter().product::<usize>() as u64
    }

    /// Work of [`prepare`] and [`encode`], in the unit of the [`Meter`].
    pub(super) fn work(&self) -> u64 {
        self.shaping_work() + self.encoding_work()
    }

    /// Work of [`prepare`].
    pub(super) fn shaping_work(&self) -> u64 {
        PASSES * self.elements()
    }

    /// Work of writing the layer.
    fn encoding_work(&self) -> u64 {
        let Encode { codec, goal, .. } = self.settings.encode;
        let work: u64 = match codec {
            CodecChoice::Only(codec) => codec.encoding_work(),
            CodecChoice::Auto => goal.codecs().iter().map(|codec| codec.encoding_work()).sum(),
        };
        work * self.elements()
    }
}

/// The weights of a layer in matrix order.
#[derive(Clone)]
pub(super) struct Loaded {
    rows: usize,
    cols: usize,
    data: FloatData,
}

/// An encoded layer, and what was measured on the way.
pub(super) struct Encoded {
    pub rows_per_block: usize,
    pub codebook: CodebookRef,
    pub payload: Vec<u8>,
    pub measured: LayerMeasures,
}

/// What is known of a layer once it is encoded.
pub(super) struct LayerMeasures {
    pub codec: CodecId,
    /// Bytes of the payload: codes, dictionary, indices, block table.
    pub stream_bytes: u64,
    /// Bytes of its own codebook; 0 where it has none, or shares one.
    pub codebook_bytes: u64,
    /// Weights that are +0.0, or went with their unit.
    pub zeros: u64,
    pub distinct_values: usize,
    /// `None` when nothing was lost.
    pub weight_snr_db: Option<f64>,
    pub note: Option<String>,
}

impl Loaded {
    /// Reads a weight and checks that it is finite.
    pub(super) fn read(model: &Model, weight: &Weight) -> Result<Self, CompressError> {
        let Weight { name, dims, layout, .. } = weight;
        let data = model.read(weight)?;
        if let Some(index) = data.first_non_finite() {
            return Err(CompressError::NonFinite { tensor: name.clone(), index });
        }
        let (rows, cols) = layout.shape(dims).expect("a model's layouts fit its tensors");
        let data = match data {
            FloatData::F32(values) => FloatData::F32(layout.to_matrix(dims, values)),
            FloatData::F64(values) => FloatData::F64(layout.to_matrix(dims, values)),
        };
        Ok(Self { rows, cols, data })
    }

    /// Shows the layer to a method, f64 weights rounded to f32.
    pub(super) fn show<T>(&self, name: &str, method: impl FnOnce(&LayerContext) -> T) -> T {
        let weights = match &self.data {
            FloatData::F32(values) => Cow::Borrowed(values.as_slice()),
            FloatData::F64(values) => Cow::Owned(values.iter().map(|&v| v as f32).collect()),
        };
        method(&LayerContext::new(name, self.rows, self.cols, &weights))
    }

    /// Sets what the task prunes to zero, and returns the sum of the squares that went.
    pub(super) fn prune(&mut self, task: &Task) -> f64 {
        self.prune_with(task, None)
    }

    /// The same, by a criterion that looks at the layer's inputs.
    pub(super) fn prune_with(&mut self, task: &Task, statistics: Option<&Statistics>) -> f64 {
        let Some(prune) = task.settings.prune else { return 0.0 };
        let mask = self.show(&task.weight.name, |layer| {
            let layer = &layer.with_statistics(statistics);
            if prune.ranks_rows() {
                return prune.mask_rows(layer);
            }
            prune.mask(layer, task.threshold.unwrap_or_else(|| prune.threshold(layer)))
        });
        let pruned = (0..self.data.len()).filter(|&i| !mask.is_kept(i)).map(|i| self.data.get(i));
        let lost = energy(pruned);
        mask.apply(&mut self.data);
        lost
    }

    /// Puts other weights in the place of these.
    ///
    /// # Panics
    /// If they are not as many.
    pub(super) fn replace(&mut self, data: FloatData) {
        assert_eq!(data.len(), self.data.len());
        self.data = data;
    }

    /// The weights as f32.
    pub(super) fn to_f32(&self) -> Vec<f32> {
        self.data.to_f32().into_owned()
    }

    /// Replaces the weights by symbols, as the task asks, with the inputs of the layer in view.
    pub(super) fn share_calibrated(
        self,
        task: &Task,
        problem: &Problem,
        meter: &Meter,
    ) -> Result<Matrix, CompressError> {
        let quantize = task.settings.quantize;
        let is_weighted = quantize.is_some_and(|quantize| quantize.weighting == Weighting::Hessian);
        let weighted = || Distribution::weighted(problem.importances().pair(&self.data.to_f32()).collect());
        let distribution = (is_weighted && task.unified.is_none()).then(weighted);
        let (matrix, _) = self.share_by(distribution, task, meter)?;
        match quantize.map(|quantize| quantize.rounding) {
            Some(Rounding::Feedback) => Ok(problem.descend(matrix, &meter.inner())?),
            Some(Rounding::Nearest) | None => Ok(matrix),
        }
    }

    /// Replaces the weights by the nearest multiples of `step`.
    pub(super) fn share_uniformly(self, task: &Task, step: f64, meter: &Meter) -> Result<Matrix, CompressError> {
        let dtype = task.weight.dtype;
        // Adding zero makes +0.0 of -0.0.
        let multiple = |i| (dtype.round((self.data.get(i) / step).round_ties_even() * step) + 0.0) as f32;
        let data = FloatData::F32((0..self.data.len()).map(multiple).collect());
        Self { data, ..self }.keep(task, meter)
    }

    /// The weights as they are, as symbols where they have few values.
    pub(super) fn keep(self, task: &Task, meter: &Meter) -> Result<Matrix, CompressError> {
        let matrix = share_exact((self.rows, self.cols), task.weight.dtype, self.data, &meter.inner());
        matrix.map_err(|error| CompressError::quantize(&task.weight.name, error))
    }

    /// Signal to noise in dB of what became of the weights; `None` when nothing was lost.
    pub(super) fn snr_db(&self, matrix: &Matrix) -> Option<f64> {
        let signal = energy((0..self.data.len()).map(|i| self.data.get(i)));
        let noise = energy((0..self.data.len()).map(|i| self.data.get(i) - matrix.value(i)));
        (noise > 0.0).then(|| 10.0 * libm::log10(signal / noise))
    }

    /// Replaces the weights by symbols, as the task asks; returns the sum of the squared errors.
    fn share(self, task: &Task, meter: &Meter) -> Result<(Matrix, f64), CompressError> {
        self.share_by(None, task, meter)
    }

    /// The same with another distribution to fit a codebook of its own to.
    fn share_by(
        self,
        distribution: Option<Distribution>,
        task: &Task,
        meter: &Meter,
    ) -> Result<(Matrix, f64), CompressError> {
        let (name, dtype) = (&task.weight.name, task.weight.dtype);
        let fail = |e| CompressError::quantize(name, e);
        let Some(quantize) = task.settings.quantize else { return Ok((self.keep(task, meter)?, 0.0)) };
        let matrix = self.show(name, |layer| match &task.unified {
            Some(unified) => unified.fitted.assign(layer, &meter.inner()),
            None => {
                let distribution = distribution.unwrap_or_else(|| Distribution::of(layer.weights));
                quantize.quantizer.fit(&distribution, dtype, &meter.inner())?.assign(layer, &meter.inner())
            }
        });
        let matrix = matrix.map_err(fail)?;
        let errors = energy((0..self.data.len()).map(|i| self.data.get(i) - matrix.value(i)));
        Ok((matrix, errors))
    }
}

/// A pruned and shared layer.
pub(super) struct Prepared {
    pub matrix: Matrix,
    /// `None` when nothing was lost.
    pub weight_snr_db: Option<f64>,
}

impl Prepared {
    /// The values in the layout of the weight's tensor.
    #[cfg(feature = "finetune")]
    pub(super) fn tensor(&self, task: &Task) -> Vec<f32> {
        let cells = (0..self.matrix.rows() * self.matrix.cols()).map(|i| self.matrix.value(i) as f32).collect();
        task.weight.layout.to_tensor(&task.weight.dims, cells)
    }

    /// A layer whose values, given in the layout of the weight's tensor, are all its own.
    #[cfg(feature = "finetune")]
    pub(super) fn of_tensor(task: &Task, values: Vec<f32>) -> Result<Self, CompressError> {
        let weight = task.weight;
        let (dtype, shape) = (weight.dtype, weight.layout.shape(&weight.dims).unwrap_or_default());
        let values = weight.layout.to_matrix(&weight.dims, values).into_iter();
        let rounded = values.map(|value| dtype.round(f64::from(value)));
        let data = match dtype {
            FloatType::F64 => FloatData::F64(rounded.collect()),
            _ => FloatData::F32(rounded.map(|value| value as f32).collect()),
        };
        let matrix = share_exact(shape, dtype, data, &Silent);
        let matrix = matrix.map_err(|error| CompressError::quantize(&weight.name, error))?;
        Ok(Self { matrix, weight_snr_db: None })
    }
}

/// Takes one layer through all stages before the last.
pub(super) fn prepare(model: &Model, task: &Task, meter: &Meter) -> Result<Prepared, CompressError> {
    let name = &task.weight.name;
    let mut loaded = Loaded::read(model, task.weight)?;
    let signal = energy((0..loaded.data.len()).map(|i| loaded.data.get(i)));
    let pruned = loaded.prune(task);
    meter.advance(task.elements(), "prune", name)?;
    let (matrix, errors) = loaded.share(task, meter)?;
    meter.advance(task.elements(), "quantize", name)?;
    let noise = pruned + errors;
    let weight_snr_db = (noise > 0.0).then(|| 10.0 * libm::log10(signal / noise));
    Ok(Prepared { matrix, weight_snr_db })
}

/// Writes the matrix: with its codebook, or with every value in full where that is smaller.
pub(super) fn encode(task: &Task, prepared: Prepared, meter: &Meter) -> Result<Encoded, CompressError> {
    let Prepared { matrix, weight_snr_db } = prepared;
    let part = meter.part(task.encoding_work(), "encode", &task.weight.name);
    let fail = |source| CompressError::encode(&task.weight.name, source);
    let mut written = write(task, &matrix, &part).map_err(fail)?;
    if let Some(raw) = worth_trying_raw(task, &matrix) {
        let mut in_full = write(task, &raw, &part).map_err(fail)?;
        if in_full.size_bytes() < written.size_bytes() {
            in_full.note = Some("its values repeat so little that no codebook pays: each is stored in full".to_owned());
            written = in_full;
        }
    }
    // Weights that went with their unit count as zero.
    let gone = task.elements() - (matrix.rows() * matrix.cols()) as u64;
    let (zeros, distinct_values) = census(matrix);
    let measured = LayerMeasures {
        codec: written.codec,
        stream_bytes: written.payload.len() as u64,
        codebook_bytes: written.codebook_bytes() as u64,
        zeros: zeros + gone,
        distinct_values,
        weight_snr_db,
        note: written.note,
    };
    let Written { rows_per_block, codebook, payload, .. } = written;
    part.report(1.0, "encode", &task.weight.name);
    part.check()?;
    Ok(Encoded { rows_per_block, codebook, payload, measured })
}

/// Cells per value of a codebook below which the codebook, at the width of a weight each, may cost more than it saves.
pub(super) const RARELY_REPEATED: usize = 4;

/// The matrix with every value in full, where the choice is ours and values repeat so little that it may be smaller.
fn worth_trying_raw(task: &Task, matrix: &Matrix) -> Option<Matrix> {
    let Values::Shared { codebook, indices } = matrix.values() else { return None };
    let is_open = task.settings.encode.codec == CodecChoice::Auto && task.unified.is_none();
    (is_open && indices.len() < RARELY_REPEATED * codebook.len()).then(|| matrix.to_raw())
}

/// A matrix in a codec's bytes.
struct Written {
    codec: CodecId,
    rows_per_block: usize,
    codebook: CodebookRef,
    payload: Vec<u8>,
    note: Option<String>,
}

impl Written {
    /// Bytes of its own codebook; 0 where it has none, or shares one.
    fn codebook_bytes(&self) -> usize {
        match &self.codebook {
            CodebookRef::Own(codebook) => codebook.len() * codebook.dtype().size_bytes(),
            _ => 0,
        }
    }

    fn size_bytes(&self) -> usize {
        self.payload.len() + self.codebook_bytes()
    }
}

/// Encodes with the codec that the recipe asks for, or with the smallest where it leaves that open or the codec cannot
/// represent the matrix. The note tells a person what came otherwise.
fn write(task: &Task, matrix: &Matrix, progress: &dyn Progress) -> Result<Written, EncodeError> {
    let codebook = match (matrix.values(), &task.unified) {
        (Values::Raw { .. }, _) => CodebookRef::Raw,
        (Values::Shared { codebook, .. }, unified) => match unified.as_ref().and_then(|unified| unified.index) {
            Some(index) => CodebookRef::Shared(index),
            None => CodebookRef::Own(codebook.clone()),
        },
    };
    let mut note = matches!(matrix.values(), Values::Raw { .. }).then(|| {
        format!("more than {MAX_LEVELS} distinct values, which no codebook holds: every value is stored in full")
    });
    let rows_per_block = codec::rows_per_block_for(matrix);
    if let CodecChoice::Only(codec) = task.settings.encode.codec {
        let rows_per_block = rows_per_block(codec);
        match codec::encode_cancellable(matrix, codec, rows_per_block, progress) {
            Ok(payload) => return Ok(Written { codec, rows_per_block, codebook, payload, note }),
            Err(EncodeError::NeedsRawValues { .. }) => {
                let payload = codec::encode_cancellable(&matrix.to_raw(), codec, rows_per_block, progress)?;
                return Ok(Written { codec, rows_per_block, codebook: CodebookRef::Raw, payload, note });
            }
            Err(EncodeError::NeedsCodebook { .. }) => {
                note = note.map(|note| format!("{note}, which {} cannot", codec.name()));
            }
            Err(
                error @ (EncodeError::BlockTooLarge { .. }
                | EncodeError::TooManyRows { .. }
                | EncodeError::TooManyLevels { .. }),
            ) => {
                note = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    let smallest = codec::encode_smallest(matrix, task.settings.encode.goal.codecs(), rows_per_block, progress)?;
    let Smallest { codec, rows_per_block, payload } = smallest;
    Ok(Written { codec, rows_per_block, codebook, payload, note })
}

/// Counts the cells that are +0.0, and the distinct values. Takes the matrix: raw values are sorted where they are.
fn census(matrix: Matrix) -> (u64, usize) {
    match matrix.into_values() {
        Values::Shared { codebook, indices } => {
            let mut counts = vec![0u64; codebook.len()];
            indices.iter().for_each(|&index| counts[usize::from(index)] += 1);
            let zeros = codebook.zero().map_or(0, |zero| counts[usize::from(zero)]);
            (zeros, counts.iter().filter(|&&count| count > 0).count())
        }
        // Same-sized elements: collecting them reuses the memory.
        Values::Raw { data: FloatData::F32(values), .. } => census_of(values.into_iter().map(f32::to_bits).collect()),
        Values::Raw { data: FloatData::F64(values), .. } => census_of(values.into_iter().map(f64::to_bits).collect()),
    }
}

/// Counts the zeros and the distinct ones among `bits`.
fn census_of<T: Ord + Send + Default>(mut bits: Vec<T>) -> (u64, usize) {
    bits.par_sort_unstable();
    let zeros = bits.partition_point(|bits| *bits == T::default()) as u64;
    (zeros, bits.chunk_by(T::eq).count())
}

/// Sum of squares, in the order given.
fn energy(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value * value)
}
