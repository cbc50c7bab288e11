//! The exact quantile of saliencies that are seen as a stream, in constant memory.
//!
//! Saliencies are finite and not negative, so the order of their bits is the order of their values, and a radix
//! selection needs two passes: the first counts the upper halves of the bits and finds the halves in which the wanted
//! ranks fall, the second counts the lower halves of the saliencies that share them. Counts are integers, so neither
//! the order of the layers nor the number of threads matters.

use rayon::prelude::*;

use super::{CHUNK, Criterion, Prune};
use crate::tensor::LayerContext;

/// Buckets of a pass: one for each value of half of a saliency's bits.
const BUCKETS: usize = 1 << 16;

/// Fewest weights for which another thread is worth its own counts.
const WEIGHTS_PER_TASK: usize = 1 << 20;

/// What a saliency must exceed for its weight to survive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    quantile: f64,
    /// The largest f32 that is not above `quantile`: an f32 exceeds either or neither.
    bound: f32,
}

impl Threshold {
    /// Every weight survives: saliencies are not negative.
    const KEEP_ALL: Self = Self { quantile: -1.0, bound: -1.0 };

    fn new(quantile: f64) -> Self {
        let nearest = quantile as f32;
        let bound = if f64::from(nearest) > quantile { nearest.next_down() } else { nearest };
        Self { quantile, bound }
    }

    /// The quantile; -1 when every weight survives.
    pub fn get(self) -> f64 {
        self.quantile
    }

    /// The bits of up to 64 saliencies that exceed the threshold, the first in the lowest place.
    pub(super) fn survivors(self, saliencies: &[f32]) -> u64 {
        saliencies.iter().enumerate().fold(0, |word, (i, &s)| word | u64::from(s > self.bound) << i)
    }
}

/// Finds one threshold for many layers, each shown once in every pass.
///
/// The threshold is the `sparsity` quantile of all saliencies, linearly interpolated between the two order statistics
/// that surround rank `sparsity * (n - 1)`. A sparsity of 0 keeps every weight.
#[derive(Debug, Clone)]
pub struct ThresholdSearch {
    prune: Prune,
    pass: Pass,
}

#[derive(Debug, Clone)]
enum Pass {
    /// Counts of the upper halves.
    Upper(Vec<u64>),
    /// The two ranks, each with its upper half and the counts of the lower halves below it.
    Lower {
        ranks: [Rank; 2],
        fraction: f64,
    },
    Done(Threshold),
}

/// A wanted order statistic, halfway found.
#[derive(Debug, Clone)]
struct Rank {
    /// The upper half of its bits.
    upper: u32,
    /// Its rank among the saliencies that share the upper half.
    within: u64,
    /// How often each lower half occurs among them.
    lower: Vec<u64>,
}

impl ThresholdSearch {
    pub(super) fn new(prune: Prune) -> Self {
        let pass = match prune.sparsity.get() {
            0.0 => Pass::Done(Threshold::KEEP_ALL),
            _ => Pass::Upper(vec![0; BUCKETS]),
        };
        Self { prune, pass }
    }

    /// Counts one layer of the current pass.
    pub fn observe(&mut self, layer: &LayerContext<'_>) {
        let criterion = self.prune.criterion;
        match &mut self.pass {
            Pass::Upper(counts) => {
                let seen = count(criterion, layer, 1, |counts, bits| counts[(bits >> 16) as usize] += 1);
                add(counts, &seen);
            }
            Pass::Lower { ranks, .. } => {
                let uppers = [ranks[0].upper, ranks[1].upper];
                let seen = count(criterion, layer, 2, |counts, bits| {
                    let (upper, lower) = (bits >> 16, (bits & 0xFFFF) as usize);
                    // Rarely true, so cheaper to ask than to count.
                    if upper == uppers[0] {
                        counts[lower] += 1;
                    }
                    if upper == uppers[1] {
                        counts[BUCKETS + lower] += 1;
                    }
                });
                add(&mut ranks[0].lower, &seen[..BUCKETS]);
                add(&mut ranks[1].lower, &seen[BUCKETS..]);
            }
            Pass::Done(_) => {}
        }
    }

    /// Ends a pass over all layers. Returns the threshold, or `None` while the layers must be shown once more.
    pub fn end_pass(&mut self) -> Option<Threshold> {
        self.pass = match std::mem::replace(&mut self.pass, Pass::Done(Threshold::KEEP_ALL)) {
            Pass::Upper(counts) => split_ranks(&counts, self.prune.sparsity.get()),
            Pass::Lower { ranks, fraction } => {
                let [below, above] = ranks.map(|rank| f64::from(rank.value()));
                Pass::Done(Threshold::new(interpolate(below, above, fraction)))
            }
            done @ Pass::Done(_) => done,
        };
        match self.pass {
            Pass::Done(threshold) => Some(threshold),
            _ => None,
        }
    }
}

impl Rank {
    /// The saliency at this rank, once all lower halves are counted.
    fn value(&self) -> f32 {
        let (lower, _) = bucket_of(&self.lower, self.within);
        f32::from_bits(self.upper << 16 | lower as u32)
    }
}

/// Finds the upper halves of the two ranks around the quantile. No weights at all leave nothing to prune.
fn split_ranks(counts: &[u64], sparsity: f64) -> Pass {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return Pass::Done(Threshold::KEEP_ALL);
    }
    let position = sparsity * (total - 1) as f64;
    let below = (position as u64).min(total - 1);
    let ranks = [below, (below + 1).min(total - 1)].map(|rank| {
        let (upper, within) = bucket_of(counts, rank);
        Rank { upper: upper as u32, within, lower: vec![0; BUCKETS] }
    });
    Pass::Lower { ranks, fraction: position - below as f64 }
}

/// The bucket that holds `rank`, and the rank inside it.
fn bucket_of(counts: &[u64], mut rank: u64) -> (usize, u64) {
    for (bucket, &count) in counts.iter().enumerate() {
        if rank < count {
            return (bucket, rank);
        }
        rank -= count;
    }
    // Only layers that changed between the passes lead here.
    (counts.len() - 1, 0)
}

/// Linear interpolation, exact at both ends and where they are equal.
fn interpolate(below: f64, above: f64, fraction: f64) -> f64 {
    below + (above - below) * fraction
}

/// Runs `record` on the bits of every saliency of `layer`, with `tables` tables of counts.
fn count(
    criterion: Criterion,
    layer: &LayerContext<'_>,
    tables: usize,
    record: impl Fn(&mut [u64], u32) + Sync,
) -> Vec<u64> {
    let len = layer.weights.len();
    let saliencies_of = criterion.scorer(layer);
    let chunks = len.div_ceil(CHUNK);
    (0..chunks)
        .into_par_iter()
        .with_min_len(WEIGHTS_PER_TASK / CHUNK)
        .fold(
            || vec![0u64; tables * BUCKETS],
            |mut counts, chunk| {
                let start = chunk * CHUNK;
                let mut buffer = [0.0; CHUNK];
                let saliencies = &mut buffer[..CHUNK.min(len - start)];
                saliencies_of(start, saliencies);
                saliencies.iter().for_each(|s| record(&mut counts, s.to_bits()));
                counts
            },
        )
        .reduce_with(|mut a, b| {
            add(&mut a, &b);
            a
        })
        .unwrap_or_else(|| vec![0; tables * BUCKETS])
}

fn add(to: &mut [u64], from: &[u64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prune::{Scope, Sparsity};

    fn magnitude(sparsity: f64) -> Prune {
        Prune {
            criterion: Criterion::Magnitude,
            sparsity: Sparsity::new(sparsity).unwrap(),
            scope: Scope::Global,
            pattern: None,
        }
    }

    fn threshold_of(layers: &[&[f32]], sparsity: f64) -> f64 {
        let mut search = magnitude(sparsity).search();
        loop {
            for weights in layers {
                search.observe(&LayerContext::new("w", 1, weights.len(), weights));
            }
            if let Some(threshold) = search.end_pass() {
                return threshold.get();
            }
        }
    }

    /// The definition, on sorted values.
    fn percentile(layers: &[&[f32]], sparsity: f64) -> f64 {
        let mut sorted: Vec<f64> = layers.concat().iter().map(|w| f64::from(w.abs())).collect();
        sorted.sort_by(f64::total_cmp);
        let position = sparsity * (sorted.len() - 1) as f64;
        let below = position.floor() as usize;
        let above = (below + 1).min(sorted.len() - 1);
        sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
    }

    #[test]
    fn percentiles_match_a_table_worked_by_hand() {
        // Magnitudes 1, 2, 3, 4, 10: rank p * 4.
        let weights: &[f32] = &[-4.0, 1.0, -10.0, 3.0, 2.0];
        for (sparsity, expected) in [(0.25, 2.0), (0.5, 3.0), (0.6, 3.4), (0.75, 4.0), (0.9, 7.6)] {
            assert!((threshold_of(&[weights], sparsity) - expected).abs() < 1e-12, "{sparsity}");
        }
    }

    #[test]
    fn a_weight_at_the_threshold_is_pruned() {
        let prune = magnitude(0.5);
        let layer = LayerContext::new("w", 1, 3, &[1.0, -2.0, 3.0]);
        let mask = prune.mask(&layer, prune.threshold(&layer));
        assert_eq!([0, 1, 2].map(|i| mask.is_kept(i)), [false, false, true]);
    }

    #[test]
    fn sparsity_zero_keeps_every_weight() {
        let prune = magnitude(0.0);
        let layer = LayerContext::new("w", 1, 2, &[0.0, 1.0]);
        assert_eq!(prune.mask(&layer, prune.threshold(&layer)).kept(), 2);
    }

    #[test]
    fn layers_without_weights_are_fine() {
        let prune = magnitude(0.9);
        let layer = LayerContext::new("w", 0, 5, &[]);
        assert!(prune.mask(&layer, prune.threshold(&layer)).is_empty());
    }

    #[test]
    fn large_layers_are_counted_the_same_on_one_thread_and_on_four() {
        let weights: Vec<f32> = (0..2_500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) as f32).sqrt()).collect();
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| threshold_of(&[&weights], 0.9).to_bits())
        };
        assert_eq!(on(1), on(4));
        assert_eq!(f64::from_bits(on(4)), percentile(&[&weights], 0.9));
    }

    proptest! {
        #[test]
        fn the_streamed_threshold_equals_the_sorted_reference(
            first in proptest::collection::vec(-1.0f32..1.0, 1..300),
            second in proptest::collection::vec(prop_oneof![Just(0.25f32), -1e-30f32..1e30], 0..300),
            sparsity in 0.001f64..0.999,
        ) {
            let layers: [&[f32]; 2] = [&first, &second];
            prop_assert_eq!(threshold_of(&layers, sparsity), percentile(&layers, sparsity));
        }
    }
}
