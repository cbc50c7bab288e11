//! From what is known around a bit to its probability: counters, the mixer, and refiners.

use super::coder::Coder;
use super::counter::{Counters, INPUTS};
use super::logistic::{LOGISTIC, Logistic};
use super::mixer::{Mixer, SUMS, padded};
use super::refiner::Refiner;

/// Features are cut off here, in units of 1/256.
const MOST_FEATURE: i32 = 2047;

/// The shape of a [`Predictor`].
pub(super) struct Design {
    /// Tables of counters.
    pub contexts: usize,
    /// Counters in each, as a power of two.
    pub table_bits: u32,
    /// Bits that a counter counts.
    pub limit: u32,
    /// Weight sets of each sum.
    pub sets: [usize; SUMS],
    /// Selections of the last mixer.
    pub selections: usize,
    /// How fast weights learn.
    pub rate: i32,
    /// Contexts of each refiner.
    pub refiners: &'static [usize],
    /// First weights: [`INPUTS`] for each context, and one for each feature.
    pub prior: &'static [i32],
}

impl Design {
    /// The same with tables of another size.
    pub(super) const fn with_table_bits(self, table_bits: u32) -> Self {
        Self { table_bits, ..self }
    }
}

/// What is known of the next bit.
pub(super) struct Query<'a> {
    /// One for each table of counters.
    pub contexts: &'a [u32],
    /// Direct inputs of the mixer, in units of 1/256.
    pub features: &'a [i32],
    /// The weight set of each sum.
    pub sets: [usize; SUMS],
    /// The weights of the last mixer.
    pub selection: usize,
    /// One context for each refiner.
    pub refine: &'a [usize],
}

/// Predicts bits of one kind, and learns from them.
pub(super) struct Predictor {
    counters: Counters,
    mixer: Mixer,
    refiners: Vec<Refiner>,
    inputs: Vec<i32>,
    logistic: &'static Logistic,
}

impl Predictor {
    pub(super) fn new(design: &Design) -> Self {
        let logistic = &*LOGISTIC;
        Self {
            counters: Counters::new(design.contexts, design.table_bits, design.limit),
            mixer: Mixer::new(design.prior, design.sets, design.selections, design.rate),
            refiners: design.refiners.iter().map(|&contexts| Refiner::new(contexts, logistic)).collect(),
            inputs: vec![0; padded(design.prior.len())],
            logistic,
        }
    }

    /// What the mixer, whose first weights were `prior`, has learned; none before the first bit.
    #[allow(dead_code, reason = "benches/mix_priors.rs makes the priors by it")]
    pub(super) fn mean_weights(&self, prior: &[i32]) -> Option<Vec<i32>> {
        self.mixer.mean_weights(prior)
    }

    /// Codes a bit that `query` is about, and learns from it.
    #[inline]
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, query: &Query, bit: bool) -> bool {
        let (of_counters, of_features) = self.inputs.split_at_mut(INPUTS * query.contexts.len());
        self.counters.look_up(query.contexts, self.logistic, of_counters);
        for (input, feature) in of_features.iter_mut().zip(query.features) {
            *input = (*feature).clamp(-MOST_FEATURE, MOST_FEATURE);
        }
        let odds = self.mixer.mix(&self.inputs, query.sets, query.selection);
        let mixed = self.logistic.squash(odds);
        // The mean of the mixer and the refiners' mean.
        let refiners = self.refiners.len() as i32;
        let mut sum = mixed * refiners;
        for (refiner, &context) in self.refiners.iter_mut().zip(query.refine) {
            sum += refiner.refine(odds, context);
        }
        let bit = coder.code((sum / (2 * refiners)).clamp(1, (1 << 16) - 1), bit);
        self.mixer.update(&self.inputs, mixed, bit, self.logistic);
        self.counters.update(bit);
        self.refiners.iter_mut().for_each(|refiner| refiner.update(bit));
        bit
    }
}
