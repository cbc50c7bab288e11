//! Sums of planes, weighted by the terms of a sparse row: the batched product and the direct convolution.
//!
//! A row's term multiplies not one number but a run of them: one input of every sample, or one tap's view of an input
//! channel. Where the run of each column begins is all that tells a product from a convolution ("direct sparse
//! convolution": Park et al., "Faster CNNs with direct sparse convolutions and guided pruning", ICLR 2017), so neither
//! gathers patches.
//!
//! Each output is the sum of its terms in their order, whatever the tile it is computed in. The AVX2 path fuses
//! multiplication and addition, so it differs from the portable one by less than a rounding of each term:
//! `|difference| <= n 2^-23 (|bias| + sum |weight x|)` for n terms.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::has_avx2_fma;

/// Where the run of each column begins.
///
/// # Safety
/// No start is beyond [`Offsets::last`], and copies agree.
pub(crate) unsafe trait Offsets: Copy {
    /// Start of the run of `column`; `None` past the last column.
    fn start(self, column: usize) -> Option<usize>;

    /// The largest of all starts; 0 without columns.
    fn last(self) -> usize;
}

// SAFETY: the last is the maximum of all.
unsafe impl Offsets for &[u32] {
    #[inline(always)]
    fn start(self, column: usize) -> Option<usize> {
        self.get(column).map(|&start| start as usize)
    }

    fn last(self) -> usize {
        self.iter().copied().max().unwrap_or_default() as usize
    }
}

/// Runs of equal length side by side: a matrix of `columns` rows and `stride` samples.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strided {
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

// SAFETY: starts grow with the column.
unsafe impl Offsets for Strided {
    #[inline(always)]
    fn start(self, column: usize) -> Option<usize> {
        (column < self.columns).then(|| column * self.stride)
    }

    fn last(self) -> usize {
        self.columns.saturating_sub(1).saturating_mul(self.stride)
    }
}

/// What a row multiplies: `positions` floats from the start of each column's run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes<'a, O> {
    x: &'a [f32],
    offsets: O,
    positions: usize,
}

impl<'a, O: Offsets> Planes<'a, O> {
    /// # Panics
    /// If a run ends past `x`.
    pub(crate) fn new(x: &'a [f32], offsets: O, positions: usize) -> Self {
        let end = offsets.last().checked_add(positions);
        assert!(end.is_some_and(|end| end <= x.len()), "runs of {positions} in {} floats", x.len());
        Self { x, offsets, positions }
    }
}

/// What is done with a sum: `min(high, max(low, bias + sum))`; NaN stays NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Epilogue {
    pub(crate) bias: f32,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Epilogue {
    /// The sum as it is.
    pub(crate) const NONE: Self = Self { bias: 0.0, low: f32::NEG_INFINITY, high: f32::INFINITY };

    /// `value` within bounds.
    #[inline]
    pub(crate) fn clip(self, value: f32) -> f32 {
        let value = if value < self.low { self.low } else { value };
        if value > self.high { self.high } else { value }
    }
}

/// `out[t] = clip(bias + sum of weight * x[start of column + first + t])` over the terms (column, weight) of a row; a
/// term past the last column ends the row.
///
/// # Panics
/// If `first + out.len()` exceeds the positions of `planes`.
#[inline]
pub(crate) fn weighted_sum<T, O>(terms: T, planes: Planes<'_, O>, first: usize, epilogue: Epilogue, out: &mut [f32])
where
    T: Iterator<Item = (usize, f32)> + Clone,
    O: Offsets,
{
    let end = first.checked_add(out.len());
    assert!(end.is_some_and(|end| end <= planes.positions), "{} of {} positions", out.len(), planes.positions);
    #[cfg(target_arch = "x86_64")]
    if has_avx2_fma() {
        // SAFETY: the processor has AVX2 and FMA.
        return unsafe { avx2::weighted_sum(terms, planes, first, epilogue, out) };
    }
    portable(terms, planes, first, epilogue, out);
}

/// Positions that the portable path sums at a time: what baseline vector registers hold.
const PORTABLE_TILE: usize = 32;

fn portable<T, O>(terms: T, planes: Planes<'_, O>, first: usize, epilogue: Epilogue, out: &mut [f32])
where
    T: Iterator<Item = (usize, f32)> + Clone,
    O: Offsets,
{
    for (tile, out) in out.chunks_mut(PORTABLE_TILE).enumerate() {
        let first = first + tile * PORTABLE_TILE;
        let mut sums = [epilogue.bias; PORTABLE_TILE];
        let sums = &mut sums[..out.len()];
        for (column, weight) in terms.clone() {
            let Some(start) = planes.offsets.start(column) else { break };
            let run = &planes.x[start + first..][..sums.len()];
            sums.iter_mut().zip(run).for_each(|(sum, x)| *sum += weight * x);
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = epilogue.clip(*sum));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_row_without_terms_is_its_bias() {
        let planes = Planes::new(&[1.0; 8], Strided { columns: 1, stride: 8 }, 8);
        let mut out = [9.0; 5];
        weighted_sum(std::iter::empty(), planes, 3, Epilogue { bias: -1.5, low: -1.0, ..Epilogue::NONE }, &mut out);
        assert_eq!(out, [-1.0; 5]);
    }

    #[test]
    fn a_term_past_the_last_column_ends_the_row() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let mut out = [0.0; 2];
        let terms = [(1, 2.0), (2, 100.0), (0, 100.0)];
        weighted_sum(
            terms.into_iter(),
            Planes::new(&x, Strided { columns: 2, stride: 2 }, 2),
            0,
            Epilogue::NONE,
            &mut out,
        );
        assert_eq!(out, [6.0, 8.0]);
    }

    #[test]
    fn not_a_number_stays_so() {
        let epilogue = Epilogue { bias: f32::NAN, low: 0.0, high: 6.0 };
        for len in [1, 8, 19] {
            let mut out = vec![0.0; len];
            let planes = Planes::new(&[], Strided { columns: 0, stride: 0 }, 0);
            let planes = Planes { positions: len, ..planes };
            weighted_sum(std::iter::empty(), planes, 0, epilogue, &mut out);
            assert!(out.iter().all(|v| v.is_nan()));
        }
    }

    #[test]
    #[should_panic(expected = "runs of 3")]
    fn a_run_past_the_end_is_refused() {
        Planes::new(&[0.0; 8], &[0u32, 6][..], 3);
    }

    proptest! {
        #[test]
        fn both_paths_are_the_sum_in_f64(
            positions in 1usize..230,
            first in 0usize..9,
            starts in prop::collection::vec(0u32..40, 1..9),
            terms in prop::collection::vec((0usize..9, -2.0f32..2.0), 0..40),
            bias in -1.0f32..1.0,
            low in prop_oneof![Just(0.0f32), Just(f32::NEG_INFINITY)],
        ) {
            let x: Vec<f32> = (0..40 + first + positions).map(|i| ((i * 37 % 64) as f32 - 31.0) / 16.0).collect();
            let epilogue = Epilogue { bias, low, high: 6.0 };
            let terms: Vec<_> = terms.into_iter().map(|(column, weight)| (column % starts.len(), weight)).collect();
            let planes = Planes::new(&x, &starts[..], first + positions);
            let (mut fast, mut plain) = (vec![f32::NAN; positions], vec![f32::NAN; positions]);
            weighted_sum(terms.iter().copied(), planes, first, epilogue, &mut fast);
            portable(terms.iter().copied(), planes, first, epilogue, &mut plain);
            for t in 0..positions {
                let product = |&(column, weight): &(usize, f32)| {
                    f64::from(weight) * f64::from(x[starts[column] as usize + first + t])
                };
                let sum = f64::from(bias) + terms.iter().map(product).sum::<f64>();
                let size = f64::from(bias.abs()) + terms.iter().map(|term| product(term).abs()).sum::<f64>();
                let bound = (terms.len() as f64 + 1.0) * size * f64::from(f32::EPSILON);
                let expected = sum.max(low.into()).min(6.0);
                prop_assert!((f64::from(fast[t]) - expected).abs() <= bound, "{} {expected}", fast[t]);
                prop_assert!((f64::from(plain[t]) - expected).abs() <= bound, "{} {expected}", plain[t]);
            }
        }
    }
}
