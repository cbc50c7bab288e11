//! [`super::weighted_sum`] with AVX2 and FMA: a tile of positions is held in registers while the row is walked.

use std::arch::x86_64::*;

use super::{Epilogue, Offsets, Planes};

/// Floats of a vector.
const LANES: usize = 8;

/// Most vectors of a tile: with the weight and one spare, what 16 registers hold.
const MOST_VECTORS: usize = 12;

/// See [`super::weighted_sum`], which has checked that `first + out.len()` positions are there.
#[target_feature(enable = "avx2,fma")]
pub(super) fn weighted_sum<T, O>(terms: T, planes: Planes<'_, O>, first: usize, epilogue: Epilogue, out: &mut [f32])
where
    T: Iterator<Item = (usize, f32)> + Clone,
    O: Offsets,
{
    if out.len() < LANES {
        return short_tile(terms, planes, first, epilogue, out);
    }
    // Tiles of nearly equal width. The last vector of the last tile ends with `out`, so it may overlap the one before it.
    let vectors = out.len().div_ceil(LANES);
    let per_tile = vectors.div_ceil(vectors.div_ceil(MOST_VECTORS));
    let mut start = 0;
    while start < out.len() {
        let end = out.len().min(start + per_tile * LANES);
        // A tile narrower than a vector reaches back into the one before it, with the same sums.
        let start_of_tile = start.min(end - LANES);
        let (first, out) = (first + start_of_tile, &mut out[start_of_tile..end]);
        let terms = terms.clone();
        match out.len().div_ceil(LANES) {
            1 => tile::<1, T, O>(terms, planes, first, epilogue, out),
            2 => tile::<2, T, O>(terms, planes, first, epilogue, out),
            3 => tile::<3, T, O>(terms, planes, first, epilogue, out),
            4 => tile::<4, T, O>(terms, planes, first, epilogue, out),
            5 => tile::<5, T, O>(terms, planes, first, epilogue, out),
            6 => tile::<6, T, O>(terms, planes, first, epilogue, out),
            7 => tile::<7, T, O>(terms, planes, first, epilogue, out),
            8 => tile::<8, T, O>(terms, planes, first, epilogue, out),
            9 => tile::<9, T, O>(terms, planes, first, epilogue, out),
            10 => tile::<10, T, O>(terms, planes, first, epilogue, out),
            11 => tile::<11, T, O>(terms, planes, first, epilogue, out),
            _ => tile::<MOST_VECTORS, T, O>(terms, planes, first, epilogue, out),
        }
        start = end;
    }
}

/// `out` is at least one vector long, and `N` vectors at most.
#[target_feature(enable = "avx2,fma")]
fn tile<const N: usize, T, O>(terms: T, planes: Planes<'_, O>, first: usize, epilogue: Epilogue, out: &mut [f32])
where
    T: Iterator<Item = (usize, f32)>,
    O: Offsets,
{
    assert!(out.len() >= LANES && out.len() > (N - 1) * LANES && out.len() <= N * LANES);
    let last = out.len() - LANES;
    let mut sums = [_mm256_set1_ps(epilogue.bias); N];
    let x = planes.x.as_ptr();
    for (column, weight) in terms {
        let Some(start) = planes.offsets.start(column) else { break };
        let weight = _mm256_set1_ps(weight);
        for (i, sum) in sums.iter_mut().enumerate() {
            let at = if i + 1 < N { i * LANES } else { last };
            // SAFETY: `start <= offsets.last()` and `first + at + LANES <= first + out.len() <= positions`, so the
            // vector ends within `x`: `Planes::new` has checked `offsets.last() + positions <= x.len()`.
            let run = unsafe { _mm256_loadu_ps(x.add(start + first + at)) };
            *sum = _mm256_fmadd_ps(weight, run, *sum);
        }
    }
    for (i, sum) in sums.into_iter().enumerate() {
        let at = if i + 1 < N { i * LANES } else { last };
        // SAFETY: `at + LANES <= out.len()`.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(at), clip(sum, epilogue)) };
    }
}

/// Fewer positions than a vector has lanes.
#[target_feature(enable = "avx2,fma")]
fn short_tile<T, O>(terms: T, planes: Planes<'_, O>, first: usize, epilogue: Epilogue, out: &mut [f32])
where
    T: Iterator<Item = (usize, f32)>,
    O: Offsets,
{
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(out.len().min(LANES) as i32), lanes);
    let mut sums = _mm256_set1_ps(epilogue.bias);
    for (column, weight) in terms {
        let Some(start) = planes.offsets.start(column) else { break };
        // SAFETY: the mask lets `out.len()` lanes be read, which lie within `x` as in `tile`.
        let run = unsafe { _mm256_maskload_ps(planes.x.as_ptr().wrapping_add(start + first), mask) };
        sums = _mm256_fmadd_ps(_mm256_set1_ps(weight), run, sums);
    }
    // SAFETY: the mask lets `out.len()` lanes be written.
    unsafe { _mm256_maskstore_ps(out.as_mut_ptr(), mask, clip(sums, epilogue)) };
}

/// Of two operands of which one is NaN, the processor returns the second: the sum.
#[target_feature(enable = "avx2,fma")]
fn clip(sum: __m256, epilogue: Epilogue) -> __m256 {
    _mm256_min_ps(_mm256_set1_ps(epilogue.high), _mm256_max_ps(_mm256_set1_ps(epilogue.low), sum))
}
