//! Adaptive probabilities: how often a bit was 1 in each of many contexts.
//!
//! A *counter* holds a probability of 22 bits and how many bits it has seen, at most a limit. A bit moves it towards
//! itself by 1 / (seen + 1.6) of the distance, so that a new counter learns fast and an old one averages; the limit keeps
//! it adaptive.

use super::logistic::Logistic;

/// Bits of the number of bits seen.
const SEEN_BITS: u32 = 10;

/// A counter that has seen nothing: one half.
const UNSEEN: u32 = 1 << 31;

/// Inputs that a counter gives to the mixer.
pub(super) const INPUTS: usize = 2;

/// A table of counters for each of several contexts, and the one of each that the next bit belongs to.
pub(super) struct Counters {
    /// Counters of one context, as a power of two.
    bits: u32,
    slots: Vec<u32>,
    current: Vec<usize>,
    /// By how many bits were seen: the part of the distance that a bit moves a counter, of 2^16.
    rates: Vec<i32>,
    /// By how many bits were seen, up to 31: how much a counter is to be trusted, of 256.
    trust: [i32; 32],
    limit: u32,
}

impl Counters {
    /// Tables for `contexts` contexts, 2^`bits` counters each, that count up to `limit` bits.
    pub(super) fn new(contexts: usize, bits: u32, limit: u32) -> Self {
        Self {
            bits,
            slots: vec![UNSEEN; contexts << bits],
            current: vec![0; contexts],
            rates: (0..=limit as i32).map(|seen| 655_360 / (10 * seen + 16)).collect(),
            trust: std::array::from_fn(|seen| (256 * seen / (seen + 2)) as i32),
            limit,
        }
    }

    /// Turns to the counters of `contexts`, one of each table; two contexts may share a counter. Writes [`INPUTS`] inputs
    /// of each to `inputs`: its log odds, and the probability less one half, weighed by how much was seen.
    #[inline]
    pub(super) fn look_up(&mut self, contexts: &[u32], logistic: &Logistic, inputs: &mut [i32]) {
        let mask = (1 << self.bits) - 1;
        for (table, (&context, current)) in contexts.iter().zip(&mut self.current).enumerate() {
            let slot = (context ^ (context >> self.bits).wrapping_mul(0x2545_f491)) & mask;
            *current = (table << self.bits) + slot as usize;
        }
        // Most of the time is spent waiting for counters: nothing here depends on one before, so that they come at once.
        for (&current, inputs) in self.current.iter().zip(inputs.as_chunks_mut::<INPUTS>().0) {
            let counter = self.slots[current];
            let seen = counter & ((1 << SEEN_BITS) - 1);
            // One half, whose log odds are 0, where nothing was seen.
            let p = counter >> 16;
            let trusted = (((p as i32 - (1 << 15)) >> 5) * self.trust[seen.min(31) as usize]) >> 8;
            *inputs = [logistic.stretch(p as u16), trusted];
        }
    }

    /// Moves the counters last looked up towards `bit`.
    #[inline]
    pub(super) fn update(&mut self, bit: bool) {
        let target = if bit { (1 << 22) - 1 } else { 0 };
        for &current in &self.current {
            let counter = &mut self.slots[current];
            let seen = *counter & ((1 << SEEN_BITS) - 1);
            let p = (*counter >> SEEN_BITS) as i32;
            let moved = p + ((((target - p) >> 7) * self.rates[seen as usize]) >> 9);
            *counter = (moved as u32) << SEEN_BITS | (seen + u32::from(seen < self.limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::logistic::LOGISTIC;
    use super::*;

    #[test]
    fn a_counter_learns_what_it_sees_and_forgets_slowly() {
        let mut counters = Counters::new(1, 4, 200);
        let mut inputs = [9; INPUTS];
        counters.look_up(&[3], &LOGISTIC, &mut inputs);
        assert_eq!(inputs, [0, 0], "nothing seen");
        for i in 0..4000 {
            counters.look_up(&[3], &LOGISTIC, &mut inputs);
            counters.update(i % 4 == 0);
        }
        counters.look_up(&[3], &LOGISTIC, &mut inputs);
        // ln(1/3) = -1.1.
        assert!((-300..-260).contains(&inputs[0]), "{inputs:?}");
        for _ in 0..200_000 {
            counters.look_up(&[3], &LOGISTIC, &mut inputs);
            counters.update(true);
        }
        assert!(inputs[0] > 2000, "{inputs:?}");
        counters.look_up(&[4], &LOGISTIC, &mut inputs);
        assert_eq!(inputs, [0, 0], "another context");
    }
}
