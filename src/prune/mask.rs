//! The mask of a pruned layer: one bit a weight.

use rayon::prelude::*;

use super::{CHUNK, Threshold};
use crate::tensor::FloatData;

/// Which weights of a layer survive, one bit a cell, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Bit `i % 64` of word `i / 64` is set when cell `i` survives; bits past the last cell are clear.
    words: Vec<u64>,
    len: usize,
}

impl Mask {
    /// The mask of `len` cells that exceed `threshold`. `saliencies` fills a buffer with those from a given cell on.
    pub(super) fn build(len: usize, threshold: Threshold, saliencies: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let mut words = vec![0; len.div_ceil(64)];
        words.par_chunks_mut(CHUNK / 64).enumerate().for_each(|(chunk, words)| {
            let start = chunk * CHUNK;
            let mut buffer = [0.0; CHUNK];
            let buffer = &mut buffer[..CHUNK.min(len - start)];
            saliencies(start, buffer);
            for (word, saliencies) in words.iter_mut().zip(buffer.chunks(64)) {
                *word = threshold.survivors(saliencies);
            }
        });
        Self { words, len }
    }

    /// The mask whose bits `survivors` lists.
    pub fn new(survivors: impl Iterator<Item = bool>) -> Self {
        let (mut words, mut len) = (Vec::new(), 0);
        for survives in survivors {
            if len % 64 == 0 {
                words.push(0);
            }
            words[len / 64] |= u64::from(survives) << (len % 64);
            len += 1;
        }
        Self { words, len }
    }

    /// The mask of the cells that are not zero.
    pub fn of(values: &[f32]) -> Self {
        Self::new(values.iter().map(|&value| value != 0.0))
    }

    /// The mask of these words, if there are as many as `len` needs and nothing is set past it.
    #[cfg(feature = "finetune")]
    pub(crate) fn from_words(words: Vec<u64>, len: usize) -> Option<Self> {
        let is_tail_clear = len.is_multiple_of(64) || words.last().is_none_or(|word| word >> (len % 64) == 0);
        (words.len() == len.div_ceil(64) && is_tail_clear).then_some(Self { words, len })
    }

    /// The bits, 64 a word; those past the last cell are clear.
    #[cfg(feature = "finetune")]
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a layer without weights.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of cells that survive.
    pub fn kept(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether cell `i` survives.
    ///
    /// # Panics
    /// If `i` is out of range.
    pub fn is_kept(&self, i: usize) -> bool {
        assert!(i < self.len, "cell {i} of {}", self.len);
        self.words[i / 64] >> (i % 64) & 1 == 1
    }

    /// Sets the cells of `data` that do not survive to +0.0; the others keep their bits, in any element type.
    ///
    /// # Panics
    /// If `data` does not hold one value per cell.
    pub fn apply(&self, data: &mut FloatData) {
        assert_eq!(data.len(), self.len, "one value per cell of the mask");
        match data {
            FloatData::F32(values) => self.zero_others(values),
            FloatData::F64(values) => self.zero_others(values),
        }
    }

    /// Sets the cells of `values`, one a cell, that do not survive to zero.
    pub(crate) fn zero_others<T: Copy + Default + Send>(&self, values: &mut [T]) {
        values.par_chunks_mut(CHUNK).zip(self.words.par_chunks(CHUNK / 64)).for_each(|(values, words)| {
            for (values, &word) in values.chunks_mut(64).zip(words) {
                for (i, value) in values.iter_mut().enumerate() {
                    *value = if word >> i & 1 == 1 { *value } else { T::default() };
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::{Criterion, Prune, Scope, Sparsity};
    use crate::tensor::LayerContext;

    #[test]
    fn survivors_keep_their_bits_and_the_rest_become_positive_zero() {
        let prune = Prune {
            criterion: Criterion::Magnitude,
            sparsity: Sparsity::new(0.5).unwrap(),
            scope: Scope::Tensor,
            pattern: None,
        };
        let exact = vec![1e-300, -3.0000000000000004, -0.0, 2.0];
        let mut data = FloatData::F64(exact.clone());
        let mask = {
            let weights = data.to_f32();
            let layer = LayerContext::new("w", 2, 2, &weights);
            prune.mask(&layer, prune.threshold(&layer))
        };
        assert_eq!((mask.len(), mask.kept()), (4, 2));
        assert!(mask.is_kept(1) && !mask.is_kept(2));
        mask.apply(&mut data);
        let bits: Vec<u64> = (0..4).map(|i| data.get(i).to_bits()).collect();
        assert_eq!(bits, [0.0f64.to_bits(), exact[1].to_bits(), 0.0f64.to_bits(), exact[3].to_bits()]);
    }

    #[test]
    fn masks_of_every_length_agree_with_the_threshold_cell_by_cell() {
        let prune = Prune {
            criterion: Criterion::Magnitude,
            sparsity: Sparsity::new(0.7).unwrap(),
            scope: Scope::Tensor,
            pattern: None,
        };
        for len in [0, 1, 63, 64, 65, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 70] {
            let weights: Vec<f32> = (0..len).map(|i| ((i * 7919) % 1009) as f32 - 504.0).collect();
            let layer = LayerContext::new("w", 1, len, &weights);
            let threshold = prune.threshold(&layer);
            let mask = prune.mask(&layer, threshold);
            for (i, weight) in weights.iter().enumerate() {
                assert_eq!(mask.is_kept(i), f64::from(weight.abs()) > threshold.get(), "cell {i} of {len}");
            }
        }
    }
}
