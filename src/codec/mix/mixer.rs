//! The mixer: one probability from many inputs, by weights that are learned on the way.
//!
//! The log odds of the prediction are a weighted sum of the inputs. Three sums are made, each with the weights of a *set*
//! that a small context selects, and a last, smaller mixer weighs the three. After each bit, weights move so that the
//! same inputs would have predicted it better: gradient descent on the code length.
//!
//! # Source
//! Mattern, "Mixing strategies in data compression", DCC 2012, and the PAQ8 programs; in integers.

use super::logistic::{LIMIT, Logistic};
use crate::kernel::integer::{WIDTH, nudge, scaled_product};

/// Sums of a mixer.
pub(super) const SUMS: usize = 3;

/// One, as a weight.
const ONE: i32 = 1 << 16;

pub(super) struct Mixer {
    /// Inputs, those included that are always 0.
    inputs: usize,
    /// By sum, set and input.
    weights: Vec<i32>,
    /// Where the sets of each sum begin, counted in sets.
    first_sets: [usize; SUMS],
    /// By selection and sum.
    last_weights: Vec<[i32; SUMS]>,
    /// The sets, and the weights of the last mixer, of the current bit.
    selected: [usize; SUMS],
    last_selected: usize,
    sums: [i32; SUMS],
    rate: i32,
    bits_seen: i32,
}

impl Mixer {
    /// `sets` are how many there are for each sum; all begin with the weights `prior`. `selections` are those of the last
    /// mixer.
    pub(super) fn new(prior: &[i32], sets: [usize; SUMS], selections: usize, rate: i32) -> Self {
        let mut set = prior.to_vec();
        set.resize(padded(prior.len()), 0);
        Self {
            inputs: set.len(),
            weights: set.repeat(sets.iter().sum()),
            first_sets: [0, sets[0], sets[0] + sets[1]],
            last_weights: vec![[ONE / SUMS as i32; SUMS]; selections],
            selected: [0; SUMS],
            last_selected: 0,
            sums: [0; SUMS],
            rate,
            bits_seen: 0,
        }
    }

    /// The mean of all weights that were used, as a prior for others; none if there are none.
    #[allow(dead_code, reason = "benches/mix_priors.rs makes the priors by it")]
    pub(super) fn mean_weights(&self, prior: &[i32]) -> Option<Vec<i32>> {
        let sets = self.weights.chunks_exact(self.inputs).map(|set| &set[..prior.len()]);
        let used: Vec<&[i32]> = sets.filter(|set| *set != prior).collect();
        let mean = |input: usize| {
            let sum: i64 = used.iter().map(|set| i64::from(set[input])).sum();
            sum.checked_div(used.len() as i64).map(|mean| mean as i32)
        };
        (0..prior.len()).map(mean).collect()
    }

    /// The log odds of the next bit: [`padded`] `inputs` in units of 1/256, each at most [`LIMIT`] from zero; a set for each sum; and
    /// the weights of the last mixer.
    #[inline]
    pub(super) fn mix(&mut self, inputs: &[i32], sets: [usize; SUMS], selection: usize) -> i32 {
        self.last_selected = selection;
        let mut mixed = 0;
        for (sum, (first, set)) in self.first_sets.into_iter().zip(sets).enumerate() {
            let at = (first + set) * self.inputs;
            self.selected[sum] = at;
            let weights = &self.weights[at..at + self.inputs];
            self.sums[sum] = (scaled_product(weights, inputs) >> 8).clamp(-LIMIT, LIMIT);
            mixed += (self.sums[sum] * (self.last_weights[selection][sum] >> 2)) >> 14;
        }
        mixed.clamp(-LIMIT, LIMIT)
    }

    /// Learns from `bit`, for which `inputs` gave the probability `p`.
    #[inline]
    pub(super) fn update(&mut self, inputs: &[i32], p: i32, bit: bool, logistic: &Logistic) {
        let target = i32::from(bit) << 16;
        let last = &mut self.last_weights[self.last_selected];
        for (weight, sum) in last.iter_mut().zip(self.sums) {
            *weight = (*weight + ((((target - p) >> 2) * (sum >> 2)) >> 15)).clamp(-ONE, 3 * ONE);
        }
        let rate = self.next_rate();
        for sum in 0..SUMS {
            let error = ((target - logistic.squash(self.sums[sum])) * rate) >> 10;
            let at = self.selected[sum];
            nudge(&mut self.weights[at..at + self.inputs], inputs, error, 4 * ONE);
        }
    }

    /// Four times as fast at first.
    fn next_rate(&mut self) -> i32 {
        self.bits_seen = (self.bits_seen + 1).min(1 << 24);
        self.rate + (64 * self.rate / (self.bits_seen / 16 + 16)).min(3 * self.rate)
    }
}

/// How many inputs a mixer takes for `inputs`: those behind them are 0.
pub(super) fn padded(inputs: usize) -> usize {
    inputs.next_multiple_of(WIDTH)
}

#[cfg(test)]
mod tests {
    use super::super::logistic::LOGISTIC;
    use super::*;

    #[test]
    fn the_input_that_knows_is_believed() {
        let mut mixer = Mixer::new(&[ONE / 4; 3], [2, 1, 1], 1, 8);
        let mut p = 0;
        for i in 0..3000u32 {
            // The first input knows, the second says the contrary in half of the cases, the third knows nothing.
            let bit = i.wrapping_mul(2_654_435_769) >> 31 == 1;
            let says = |yes: bool| if yes { 512 } else { -512 };
            let inputs = [says(bit), says(bit ^ (i % 2 == 0)), 0];
            p = LOGISTIC.squash(mixer.mix(&inputs, [(i % 2) as usize, 0, 0], 0));
            mixer.update(&inputs, p, bit, &LOGISTIC);
            p = if bit { p } else { (1 << 16) - p };
        }
        assert!(p > 60_000, "{p}");
    }

    #[test]
    fn no_inputs_overflow() {
        let mut mixer = Mixer::new(&[4 * ONE; 100], [1; SUMS], 1, 20);
        for i in 0..2000 {
            let inputs = [if i % 3 == 0 { -LIMIT } else { LIMIT }; 100];
            let p = LOGISTIC.squash(mixer.mix(&inputs, [0; SUMS], 0));
            mixer.update(&inputs, p, i % 2 == 0, &LOGISTIC);
        }
    }
}
