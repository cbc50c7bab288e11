//! A fitted quantiser at work: the codebook, and the symbol of every weight.
//!
//! All rules but random rounding cut the line of values into intervals, one symbol each; zero is an interval of its own.
//! A weight's symbol is then one look in a table ([`Intervals`]), whatever the method and the number of levels.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::keys::{Intervals, ceil_f32, key_of};
use super::{Distribution, QuantizeError};
use crate::progress::Progress;
use crate::tensor::{Codebook, FloatType, LayerContext, Matrix, MatrixError};

/// Cells that one task assigns. Random rounding gives each task a stream of its own, so the number is part of what a
/// recipe's bytes depend on.
const CHUNK: usize = 1 << 16;

/// The symbol of a zero that was never seen; no codebook without zero is so long.
const UNSEEN_ZERO: u16 = u16::MAX;

/// A fitted quantiser: a codebook, and the rule that gives every weight its symbol.
#[derive(Debug, Clone)]
pub struct Fitted {
    codebook: Arc<Codebook>,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    /// The weights of interval `i` take `symbols[i]`.
    Partition { intervals: Intervals, symbols: Vec<u16> },
    /// A weight in interval `i` lies from knot `i - 1` up to knot `i` and takes one of them at random.
    Probabilistic { intervals: Intervals, knots: Vec<Knot>, zero: u16, seed: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Knot {
    value: f64,
    symbol: u16,
    /// 2^32 over the distance to the next knot: the last one's is never used.
    scale: f64,
}

impl Fitted {
    /// Every weight takes the nearest of `centroids`, rounded to `dtype`; ties go up.
    pub(super) fn nearest(
        distribution: &Distribution,
        dtype: FloatType,
        centroids: impl IntoIterator<Item = f64>,
    ) -> Result<Self, QuantizeError> {
        let mut values: Vec<f64> = centroids.into_iter().map(|value| round_finite(dtype, value)).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup();
        let bounds: Vec<f64> = values.windows(2).map(|pair| pair[0] + (pair[1] - pair[0]) / 2.0).collect();
        Self::partition(distribution, dtype, &values, &bounds)
    }

    /// Weights below `bounds[0]` take `values[0]`, rounded to `dtype`, those from `bounds[i - 1]` on `values[i]`. Neither
    /// falls; zero keeps a symbol of its own.
    pub(super) fn partition(
        distribution: &Distribution,
        dtype: FloatType,
        values: &[f64],
        bounds: &[f64],
    ) -> Result<Self, QuantizeError> {
        let codebook = codebook(distribution, dtype, values)?;
        let zero = codebook.zero().unwrap_or(UNSEEN_ZERO);
        let symbol_of = |&value: &f64| codebook.symbol(round_finite(dtype, value)).unwrap_or(zero);
        let first = (0, values.first().map_or(zero, symbol_of));
        let later =
            values.iter().skip(1).zip(bounds).map(|(value, &bound)| (key_of(ceil_f32(bound)), symbol_of(value)));
        let starts = carve_zero(std::iter::once(first).chain(later).collect(), zero);
        let symbols = starts.iter().map(|&(_, symbol)| symbol).collect();
        let intervals = Intervals::new(starts[1..].iter().map(|&(start, _)| start).collect());
        Ok(Self { codebook: Arc::new(codebook), rule: Rule::Partition { intervals, symbols } })
    }

    /// Every weight takes one of the two `knots` around it at random, without bias.
    pub(super) fn probabilistic(
        distribution: &Distribution,
        dtype: FloatType,
        knots: Vec<f64>,
        seed: u64,
    ) -> Result<Self, QuantizeError> {
        let mut values: Vec<f64> = knots.into_iter().map(|knot| round_finite(dtype, knot)).collect();
        values.sort_unstable_by(f64::total_cmp);
        // Between two neighbouring f32 values, where no weight lies, one knot of an f64 tensor is enough.
        values.dedup_by_key(|value| key_of(ceil_f32(*value)));
        let codebook = codebook(distribution, dtype, &values)?;
        let zero = codebook.zero().unwrap_or(UNSEEN_ZERO);
        let intervals = Intervals::new(values.iter().map(|&value| key_of(ceil_f32(value))).collect());
        let nexts = values.iter().skip(1).chain(values.last());
        let knot = |(&value, &next): (&f64, &f64)| {
            let symbol = codebook.symbol(value).unwrap_or(zero);
            Knot { value, symbol, scale: 4_294_967_296.0 / (next - value) }
        };
        let knots = values.iter().zip(nexts).map(knot).collect();
        Ok(Self { codebook: Arc::new(codebook), rule: Rule::Probabilistic { intervals, knots, zero, seed } })
    }

    /// The shared values: at most the levels asked for, and +0.0 where a zero was in the distribution.
    pub fn codebook(&self) -> &Arc<Codebook> {
        &self.codebook
    }

    /// Gives every weight of `layer` its symbol; zeros of either sign become +0.0. Deterministic, whatever the number of
    /// threads.
    ///
    /// # Errors
    /// [`QuantizeError::Cancelled`]; [`QuantizeError::UnseenZero`] for a layer that was not in the distribution.
    pub fn assign(&self, layer: &LayerContext<'_>, progress: &dyn Progress) -> Result<Matrix, QuantizeError> {
        let mut indices = vec![0; layer.weights.len()];
        let chunks = indices.par_chunks_mut(CHUNK).zip(layer.weights.par_chunks(CHUNK)).enumerate();
        chunks.try_for_each(|(chunk, (symbols, weights))| {
            progress.check()?;
            match &self.rule {
                Rule::Partition { intervals, symbols: of_interval } => {
                    for (symbol, &weight) in symbols.iter_mut().zip(weights) {
                        *symbol = of_interval[intervals.find(key_of(weight))];
                    }
                }
                Rule::Probabilistic { intervals, knots, zero, seed } => {
                    let mut random = cell_randomness(*seed, layer.name, chunk);
                    for (symbol, &weight) in symbols.iter_mut().zip(weights) {
                        *symbol = if weight == 0.0 {
                            *zero
                        } else {
                            round_randomly(knots, intervals.find(key_of(weight)), weight, &mut random)
                        };
                    }
                }
            }
            Ok::<(), QuantizeError>(())
        })?;
        Matrix::shared(layer.rows, layer.cols, Arc::clone(&self.codebook), indices).map_err(|error| match error {
            MatrixError::SymbolOutOfRange { index, .. } => QuantizeError::UnseenZero { index },
            other => QuantizeError::Matrix(other),
        })
    }
}

/// Gives both zeros the symbol `zero`. `starts` are intervals, each from its key up to the next one's, the first from
/// 0; keys do not fall, and the last of equal ones counts.
fn carve_zero(mut starts: Vec<(u32, u16)>, zero: u16) -> Vec<(u32, u16)> {
    starts.reverse();
    starts.dedup_by_key(|&mut (start, _)| start);
    starts.reverse();
    let (first, after) = (key_of(-0.0), key_of(0.0) + 1);
    let (left, right) = (starts.partition_point(|s| s.0 < first), starts.partition_point(|s| s.0 <= after));
    let resumed = starts[right - 1].1;
    starts.splice(left..right, [(first, zero), (after, resumed)]);
    starts
}

/// The codebook of `values` rounded to `dtype`, and of +0.0 where the distribution has zeros or there is nothing else.
fn codebook(distribution: &Distribution, dtype: FloatType, values: &[f64]) -> Result<Codebook, QuantizeError> {
    let zero = (distribution.zeros() > 0 || values.is_empty()).then_some(0.0);
    let rounded = values.iter().map(|&value| round_finite(dtype, value));
    Ok(Codebook::from_unsorted(dtype, rounded.chain(zero))?)
}

/// `value` rounded to `dtype`; not to infinity, but to the largest finite value, and not to -0.0.
fn round_finite(dtype: FloatType, value: f64) -> f64 {
    let rounded = dtype.round(value);
    if rounded.is_infinite() && value.is_finite() {
        let largest = match dtype {
            FloatType::F16 => half::f16::MAX.to_f64(),
            FloatType::Bf16 => half::bf16::MAX.to_f64(),
            FloatType::F32 => f64::from(f32::MAX),
            FloatType::F64 => f64::MAX,
        };
        return largest.copysign(value);
    }
    // -0.0 + 0.0 is +0.0; nothing else changes.
    rounded + 0.0
}

/// The random numbers of one chunk of a layer's cells.
fn cell_randomness(seed: u64, layer: &str, chunk: usize) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(layer.as_bytes());
    let mut random = ChaCha8Rng::from_seed(hash.finalize().into());
    random.set_stream(chunk as u64);
    random
}

/// The symbol of the knot below or above `weight`, where `above` knots are at or below it.
fn round_randomly(knots: &[Knot], above: usize, weight: f32, random: &mut ChaCha8Rng) -> u16 {
    if above == 0 || above == knots.len() {
        return knots.get(above.saturating_sub(1)).map_or(0, |knot| knot.symbol);
    }
    let low = knots[above - 1];
    let draws_that_go_up = (f64::from(weight) - low.value) * low.scale;
    if f64::from(random.next_u32()) < draws_that_go_up { knots[above].symbol } else { low.symbol }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{CancelFlag, Silent};
    use crate::quantize::testing::{normal_weights, pruned};
    use crate::quantize::{Bits, Budget, Cws, Ecsq, Levels, Pws, Quantizer, Tolerance, Uq};

    fn levels(levels: i64) -> Levels {
        Levels::new(levels).unwrap()
    }

    fn every_quantizer(k: i64) -> [Quantizer; 5] {
        let tolerance = Tolerance::default();
        [
            Quantizer::Cws(Cws { levels: levels(k) }),
            Quantizer::Pws(Pws { levels: levels(k), seed: 1 }),
            Quantizer::Uq(Uq { levels: levels(k) }),
            Quantizer::Ecsq(Ecsq { budget: Budget::Levels(levels(k)), tolerance }),
            Quantizer::Ecsq(Ecsq { budget: Budget::Bits(Bits::new((k as f64).log2().max(0.5)).unwrap()), tolerance }),
        ]
    }

    fn share(quantizer: &Quantizer, dtype: FloatType, weights: &[f32]) -> Matrix {
        let fitted = quantizer.fit(&Distribution::of(weights), dtype, &Silent).unwrap();
        fitted.assign(&LayerContext::new("w", 1, weights.len(), weights), &Silent).unwrap()
    }

    fn distinct_survivors(matrix: &Matrix) -> usize {
        let mut bits: Vec<u64> = (0..matrix.rows() * matrix.cols())
            .map(|i| matrix.value(i))
            .filter(|&v| v != 0.0)
            .map(f64::to_bits)
            .collect();
        bits.sort_unstable();
        bits.dedup();
        bits.len()
    }

    #[test]
    fn zero_stays_exactly_zero_and_costs_no_level() {
        let weights = pruned(normal_weights(30_000, 1));
        for quantizer in every_quantizer(7) {
            let matrix = share(&quantizer, FloatType::F32, &weights);
            let zeros = (0..weights.len()).filter(|&i| weights[i] == 0.0);
            assert!(zeros.clone().all(|i| matrix.value(i).to_bits() == 0), "{quantizer:?}");
            if !matches!(quantizer, Quantizer::Ecsq(Ecsq { budget: Budget::Bits(_), .. })) {
                assert!((1..=7).contains(&distinct_survivors(&matrix)), "{quantizer:?}");
            }
        }
    }

    #[test]
    fn codebooks_of_half_types_hold_values_of_that_type_even_where_centroids_merge() {
        // Values so close that bfloat16 tells only two of them apart.
        let weights: Vec<f32> = (0..64).map(|i| 1.0 + i as f32 * 1e-4).chain([0.0]).collect();
        for quantizer in every_quantizer(8) {
            for dtype in [FloatType::F16, FloatType::Bf16] {
                let matrix = share(&quantizer, dtype, &weights);
                assert_eq!(matrix.dtype(), dtype);
                assert!((0..65).all(|i| dtype.round(matrix.value(i)) == matrix.value(i)), "{quantizer:?}");
                assert_eq!(matrix.value(64).to_bits(), 0);
            }
        }
    }

    #[test]
    fn layers_with_no_more_values_than_levels_are_kept_exactly() {
        let weights = [0.1, -0.7, 0.0, 0.1, 3.0, -0.0];
        for quantizer in &every_quantizer(3)[..4] {
            let matrix = share(quantizer, FloatType::F32, &weights);
            assert!((0..6).all(|i| matrix.value(i) == f64::from(weights[i])), "{quantizer:?}");
        }
    }

    #[test]
    fn empty_and_fully_pruned_layers_are_fine() {
        for quantizer in every_quantizer(4) {
            assert_eq!(share(&quantizer, FloatType::F32, &[]).cols(), 0);
            let matrix = share(&quantizer, FloatType::F32, &[0.0, -0.0]);
            assert!((0..2).all(|i| matrix.value(i).to_bits() == 0));
        }
    }

    #[test]
    fn a_zero_that_was_not_fitted_is_named() {
        let fitted = every_quantizer(2)[0].fit(&Distribution::of(&[1.0, 2.0, 3.0]), FloatType::F32, &Silent).unwrap();
        let layer = LayerContext::new("w", 1, 2, &[1.0, 0.0]);
        assert_eq!(fitted.assign(&layer, &Silent), Err(QuantizeError::UnseenZero { index: 1 }));
    }

    #[test]
    fn weights_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for quantizer in every_quantizer(2) {
                let fitted = quantizer.fit(&Distribution::of(&[1.0, bad, 2.0, 3.0]), FloatType::F32, &Silent);
                assert!(matches!(fitted, Err(QuantizeError::Codebook(_))), "{bad}");
            }
        }
    }

    #[test]
    fn extreme_weights_do_not_become_infinite() {
        let weights = [f32::MAX, -f32::MAX, 1.0, 2.0, 3.0e38, 1e-45, -1e-45];
        for quantizer in every_quantizer(2) {
            let matrix = share(&quantizer, FloatType::F32, &weights);
            assert!((0..weights.len()).all(|i| matrix.value(i).is_finite()), "{quantizer:?}");
        }
    }

    #[test]
    fn one_thread_and_four_share_alike() {
        let weights = normal_weights(400_000, 9);
        for quantizer in every_quantizer(16) {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| share(&quantizer, FloatType::F32, &weights))
            };
            assert_eq!(on(1), on(4), "{quantizer:?}");
        }
    }

    #[test]
    fn cancelling_stops_the_assignment() {
        let fitted = every_quantizer(2)[0].fit(&Distribution::of(&[1.0]), FloatType::F32, &Silent).unwrap();
        let cancelled = CancelFlag::default();
        cancelled.cancel();
        let layer = LayerContext::new("w", 1, 1, &[1.0]);
        assert_eq!(fitted.assign(&layer, &cancelled), Err(QuantizeError::Cancelled));
    }
}
