//! The coded lines, or places, most similar to one that is being coded, and the weighted sum of them that comes closest.
//!
//! Both sides find them in what was coded before, so nothing is signalled. Similarity is the Hamming distance of three
//! bits a cell: above zero, below zero, and at least 2 levels from it; it is counted 64 cells at a time.

use std::ops::Range;

use crate::kernel::integer;

/// References of a vector.
pub(super) const REFERENCES: usize = 6;

/// Pairs of vectors that one search over all vectors may compare.
const PAIRS: usize = 1 << 24;

/// Fraction bits of the weight of a reference; a weight is at most [`MOST_WEIGHT`].
const WEIGHT_BITS: u32 = 12;
const MOST_WEIGHT: i64 = 4 << WEIGHT_BITS;

/// Fraction bits of a forecast.
pub(super) const FORECAST_BITS: u32 = 4;

/// Added to the diagonal of the normal equations, so that they have one solution, and a modest one.
const RIDGE: i64 = 10;

/// Passes over the normal equations.
const PASSES: usize = 12;

/// The levels of a matrix as vectors of cells, all lines or all places of it: in full, and as three bits a cell.
pub(super) struct Vectors {
    len: usize,
    words: usize,
    levels: Vec<i8>,
    /// By vector, word and kind of bit.
    planes: Vec<u64>,
    /// Cells of each vector that are not zero.
    pub stored: Vec<u32>,
}

/// What a vector is predicted from.
#[derive(Clone, Copy)]
pub(super) struct References {
    /// The nearest first; as many as there are.
    pub vectors: [u32; REFERENCES],
    pub count: usize,
    /// Weights of the sum that comes closest, [`WEIGHT_BITS`] fraction bits.
    pub weights: [i32; REFERENCES],
    /// Bits in which the nearest differs; of finished references, a class from 0 to [`References::UNKNOWN`].
    pub distance: u32,
}

impl References {
    /// The distance of a vector without references.
    pub(super) const UNKNOWN: u32 = 15;

    pub(super) const NONE: Self =
        Self { vectors: [0; REFERENCES], count: 0, weights: [0; REFERENCES], distance: Self::UNKNOWN };

    /// With the distance in classes, beside a number of cells.
    pub(super) fn with_distance_to(mut self, cells: u32) -> Self {
        if self.count > 0 {
            self.distance = distance_class(self.distance, cells);
        }
        self
    }

    /// The weighted sum of the references' levels, [`FORECAST_BITS`] fraction bits.
    #[inline]
    pub(super) fn forecast(&self, levels: &[i32; REFERENCES]) -> i32 {
        let sum: i32 = self.weights.iter().zip(levels).map(|(weight, level)| weight * level).sum();
        sum >> (WEIGHT_BITS - FORECAST_BITS)
    }
}

impl Vectors {
    /// `count` vectors of `len` cells, all zero.
    pub(super) fn new(count: usize, len: usize) -> Self {
        let words = len.div_ceil(64);
        Self { len, words, levels: vec![0; count * len], planes: vec![0; count * words * 3], stored: vec![0; count] }
    }

    /// The level of a cell, cut off at -127 and 127.
    #[inline]
    pub(super) fn level(&self, vector: usize, at: usize) -> i32 {
        i32::from(self.levels[vector * self.len + at])
    }

    /// Notes that a cell holds `level`, which is not zero.
    pub(super) fn set(&mut self, vector: usize, at: usize, level: i32) {
        self.levels[vector * self.len + at] = level.clamp(-127, 127) as i8;
        self.stored[vector] += 1;
        let word = 3 * (vector * self.words + at / 64);
        let bit = 1 << (at % 64);
        self.planes[word + usize::from(level < 0)] |= bit;
        if level.abs() >= 2 {
            self.planes[word + 2] |= bit;
        }
    }

    /// The first vector that `vector` may refer to, when all of `vectors` search.
    pub(super) fn first_candidate(&self, vector: usize) -> usize {
        vector.saturating_sub((PAIRS / self.stored.len().max(1)).clamp(256, 4096))
    }

    /// The references of `vector` among `candidates`, by its first `known` cells. `is_complete`: none has cells beyond
    /// those, so that counts of cells bound the distance.
    pub(super) fn search(
        &self,
        vector: usize,
        candidates: Range<usize>,
        known: usize,
        is_complete: bool,
    ) -> References {
        let words = 3 * known.div_ceil(64);
        let own = &self.planes[3 * vector * self.words..][..words];
        let stored: u32 = if is_complete { self.stored[vector] } else { 0 };
        let mut nearest = [(u32::MAX, 0); REFERENCES];
        for other in candidates {
            let farthest = nearest[REFERENCES - 1].0;
            if is_complete && self.stored[other].abs_diff(stored) > farthest {
                continue;
            }
            let distance = integer::differing_bits(own, &self.planes[3 * other * self.words..][..words]);
            if distance <= farthest {
                // Of equals, the later one is nearer.
                let at = nearest.partition_point(|&(nearer, _)| nearer < distance);
                nearest.copy_within(at..REFERENCES - 1, at + 1);
                nearest[at] = (distance, other as u32);
            }
        }
        let count = nearest.iter().take_while(|(distance, _)| *distance < u32::MAX).count();
        let vectors = nearest.map(|(_, other)| other);
        let mut found = References { vectors, count, ..References::NONE };
        if count > 0 {
            found.distance = nearest[0].0;
        }
        found.weights = self.fit(vector, &vectors[..count], known);
        found
    }

    /// The weights with which the sum of `references` comes closest to `vector` in its first `known` cells: least squares,
    /// by Gauss-Seidel passes over the normal equations.
    fn fit(&self, vector: usize, references: &[u32], known: usize) -> [i32; REFERENCES] {
        let levels = |vector: usize| &self.levels[vector * self.len..][..known];
        let mut products = [[0; REFERENCES]; REFERENCES];
        let mut targets = [0; REFERENCES];
        for (i, &reference) in references.iter().enumerate() {
            let own = levels(reference as usize);
            targets[i] = product(own, levels(vector)) << WEIGHT_BITS;
            for (j, &other) in references[..=i].iter().enumerate() {
                products[i][j] = product(own, levels(other as usize));
                products[j][i] = products[i][j];
            }
        }
        let mut weights = [0i64; REFERENCES];
        for _ in 0..PASSES {
            for i in 0..references.len() {
                let others: i64 = (0..references.len()).filter(|&j| j != i).map(|j| products[i][j] * weights[j]).sum();
                let weight = (targets[i] - others).div_euclid(products[i][i] + RIDGE);
                weights[i] = weight.clamp(-MOST_WEIGHT, MOST_WEIGHT);
            }
        }
        weights.map(|weight| weight as i32)
    }
}

/// The ratio of a distance to a number of cells, in classes of half an octave.
fn distance_class(distance: u32, cells: u32) -> u32 {
    let ratio = (u64::from(distance) * 8 / (u64::from(cells) + 1)) as u32;
    match ratio {
        0 => 0,
        _ => (2 * ratio.ilog2() + (ratio >> ratio.ilog2().saturating_sub(1) & u32::from(ratio > 1))).min(13),
    }
}

/// The sum of products of two vectors.
fn product(a: &[i8], b: &[i8]) -> i64 {
    let parts = a.chunks(1 << 16).zip(b.chunks(1 << 16));
    parts.map(|(a, b)| i64::from(integer::product(a, b))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(of: &[&[i32]]) -> Vectors {
        let mut vectors = Vectors::new(of.len(), of[0].len());
        for (vector, levels) in of.iter().enumerate() {
            for (at, &level) in levels.iter().enumerate().filter(|(_, level)| **level != 0) {
                vectors.set(vector, at, level);
            }
        }
        vectors
    }

    #[test]
    fn the_nearest_is_found_and_of_equals_the_last() {
        let all =
            vectors(&[&[1, 0, -1, 0, 3], &[-1, 0, 0, 0, 3], &[1, 0, -1, 0, 1], &[1, 0, -1, 0, 3], &[1, 0, -1, 0, 4]]);
        for is_complete in [false, true] {
            let found = all.search(4, 0..4, 5, is_complete);
            // Distances 0, 3, 1 and 0.
            assert_eq!((&found.vectors[..found.count], found.distance), (&[3, 0, 2, 1][..], 0));
        }
        assert_eq!(all.search(4, 0..0, 5, true).count, 0);
    }

    #[test]
    fn a_sum_of_references_is_fitted() {
        let a: Vec<i32> = (0..400).map(|i| [5, 0, -3, 0, 7, 0, 0][i % 7]).collect();
        let b: Vec<i32> = (0..400).map(|i| [0, 4, 0, -9, 1][i % 5]).collect();
        let sum: Vec<i32> = a.iter().zip(&b).map(|(a, b)| 2 * a - b).collect();
        let all = vectors(&[&a, &b, &sum]);
        let found = all.search(2, 0..2, 400, true);
        for (at, &sum) in sum.iter().enumerate() {
            let mut levels = [0; REFERENCES];
            (0..found.count).for_each(|j| levels[j] = all.level(found.vectors[j] as usize, at));
            let forecast = found.forecast(&levels);
            assert!((forecast - (sum << FORECAST_BITS)).abs() <= 4, "{forecast} for {sum}");
        }
    }

    #[test]
    fn products_of_the_largest_levels_do_not_overflow() {
        let all = vectors(&[&[-127; 5000], &[127; 5000]]);
        assert_eq!(product(&all.levels[..5000], &all.levels[5000..]), -127 * 127 * 5000);
        assert_eq!(all.search(1, 0..1, 5000, true).weights[0], -4096);
    }
}
