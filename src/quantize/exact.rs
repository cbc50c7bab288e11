//! The lossless path: a tensor's own distinct values as its codebook, bit by bit.

use std::sync::Arc;

use rayon::prelude::*;

use super::QuantizeError;
use super::distinct::Distinct;
use super::keys::{Intervals, key_of, key_of_f64, value_of, value_of_f64};
use crate::progress::Progress;
use crate::tensor::{Codebook, FloatData, FloatType, MAX_LEVELS, Matrix, MatrixError};

/// Values looked at between two questions whether to go on, and assigned by one task.
const CHUNK: usize = 1 << 16;

/// Shares the exact distinct values of `data`, in matrix order and of element type `dtype`; -0.0 is a value of its own.
/// With more distinct values than a codebook holds the matrix stays raw. `shape` is rows and columns.
///
/// # Errors
/// [`QuantizeError::Cancelled`]; [`QuantizeError::Matrix`] if the values do not fill the shape or one is not finite.
pub fn share_exact(
    (rows, cols): (usize, usize),
    dtype: FloatType,
    data: FloatData,
    progress: &dyn Progress,
) -> Result<Matrix, QuantizeError> {
    if let Some(index) = data.first_non_finite() {
        return Err(MatrixError::NonFinite { index }.into());
    }
    let shared = match &data {
        FloatData::F32(values) => share_f32(values, dtype, progress)?,
        FloatData::F64(values) => share_f64(values, dtype, progress)?,
    };
    Ok(match shared {
        Some((codebook, indices)) => Matrix::shared(rows, cols, Arc::new(codebook), indices)?,
        None => Matrix::raw(rows, cols, dtype, data)?,
    })
}

type Shared = Option<(Codebook, Vec<u16>)>;

fn share_f32(values: &[f32], dtype: FloatType, progress: &dyn Progress) -> Result<Shared, QuantizeError> {
    let Some(keys) = distinct(values, key_of, progress)? else { return Ok(None) };
    let codebook = codebook(dtype, keys.iter().map(|&key| f64::from(value_of(key))))?;
    let intervals = Intervals::new(keys);
    let indices = assign(values, progress, |&value| intervals.find(key_of(value)) - 1)?;
    Ok(Some((codebook, indices)))
}

fn share_f64(values: &[f64], dtype: FloatType, progress: &dyn Progress) -> Result<Shared, QuantizeError> {
    let Some(keys) = distinct(values, key_of_f64, progress)? else { return Ok(None) };
    let codebook = codebook(dtype, keys.iter().map(|&key| value_of_f64(key)))?;
    let indices = assign(values, progress, |&value| keys.partition_point(|&key| key <= key_of_f64(value)) - 1)?;
    Ok(Some((codebook, indices)))
}

/// The keys of the distinct values in ascending order, or `None` where a codebook cannot hold them.
fn distinct<T: Copy, K: Copy + Ord>(
    values: &[T],
    key_of: impl Fn(T) -> K,
    progress: &dyn Progress,
) -> Result<Option<Vec<K>>, QuantizeError> {
    let mut distinct = Distinct::new(MAX_LEVELS);
    for chunk in values.chunks(CHUNK) {
        progress.check()?;
        let keys: Vec<K> = chunk.iter().map(|&value| key_of(value)).collect();
        if !distinct.extend(&keys) {
            return Ok(None);
        }
    }
    Ok(distinct.settle().then(|| distinct.into_counts().map(|(key, _)| key).collect()))
}

/// A codebook of ascending values; of +0.0 for a tensor without any.
fn codebook(dtype: FloatType, values: impl Iterator<Item = f64>) -> Result<Codebook, QuantizeError> {
    let mut values: Vec<f64> = values.collect();
    if values.is_empty() {
        values.push(0.0);
    }
    Ok(Codebook::new(dtype, values)?)
}

fn assign<T: Sync>(
    values: &[T],
    progress: &dyn Progress,
    symbol: impl Fn(&T) -> usize + Sync,
) -> Result<Vec<u16>, QuantizeError> {
    let mut indices = vec![0; values.len()];
    indices.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).try_for_each(|(indices, values)| {
        progress.check()?;
        indices.iter_mut().zip(values).for_each(|(index, value)| *index = symbol(value) as u16);
        Ok::<(), QuantizeError>(())
    })?;
    Ok(indices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::progress::{CancelFlag, Silent};
    use crate::tensor::Values;

    #[test]
    fn negative_zero_is_told_from_zero() {
        let data = FloatData::F32(vec![0.0, -0.0, 1.5, -0.0]);
        let matrix = share_exact((2, 2), FloatType::F32, data, &Silent).unwrap();
        let Values::Shared { codebook, indices } = matrix.values() else { panic!("four cells share three values") };
        assert_eq!((codebook.values().len(), &indices[..]), (3, &[1, 0, 2, 0][..]));
    }

    #[test]
    fn a_tensor_of_exactly_65536_values_is_shared_and_of_one_more_kept() {
        for (count, shared) in [(MAX_LEVELS, true), (MAX_LEVELS + 1, false)] {
            let f32s = FloatData::F32((0..count).map(|i| i as f32).collect());
            let f64s = FloatData::F64((0..count).map(|i| i as f64 / 3.0).collect());
            for (dtype, data) in [(FloatType::F32, f32s), (FloatType::F64, f64s)] {
                let matrix = share_exact((1, count), dtype, data.clone(), &Silent).unwrap();
                assert_eq!(matches!(matrix.values(), Values::Shared { .. }), shared);
                assert!((0..count).all(|i| matrix.value(i).to_bits() == data.get(i).to_bits()));
            }
        }
    }

    #[test]
    fn every_finite_half_float_fits_one_codebook() {
        for dtype in [FloatType::F16, FloatType::Bf16] {
            let values: Vec<f32> =
                (0..=u64::from(u16::MAX)).map(|bits| dtype.from_bits(bits) as f32).filter(|v| v.is_finite()).collect();
            let matrix = share_exact((1, values.len()), dtype, FloatData::F32(values.clone()), &Silent).unwrap();
            assert!((0..values.len()).all(|i| (matrix.value(i) as f32).to_bits() == values[i].to_bits()));
            assert!(matches!(matrix.values(), Values::Shared { .. }));
        }
    }

    #[test]
    fn bad_values_shapes_and_cancellation_are_errors() {
        let share = |cols, values: Vec<f32>| share_exact((1, cols), FloatType::F32, FloatData::F32(values), &Silent);
        assert_eq!(share(2, vec![1.0, f32::NAN]), Err(MatrixError::NonFinite { index: 1 }.into()));
        assert_eq!(share(3, vec![1.0]), Err(MatrixError::CellCount { rows: 1, cols: 3, found: 1 }.into()));
        assert_eq!(share(0, vec![]).map(|m| m.cols()), Ok(0));
        let cancelled = CancelFlag::default();
        cancelled.cancel();
        let data = FloatData::F32(vec![1.0]);
        assert_eq!(share_exact((1, 1), FloatType::F32, data, &cancelled), Err(QuantizeError::Cancelled));
    }

    proptest! {
        #[test]
        fn sharing_is_bit_exact(bits in proptest::collection::vec(any::<u32>(), 1..500)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|v| v.is_finite()).collect();
            let matrix = share_exact((values.len(), 1), FloatType::F32, FloatData::F32(values.clone()), &Silent).unwrap();
            for (i, value) in values.iter().enumerate() {
                prop_assert_eq!((matrix.value(i) as f32).to_bits(), value.to_bits());
            }
        }
    }
}
