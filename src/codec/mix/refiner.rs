//! A last correction: what a probability turned out to be, in a small context.
//!
//! # Source
//! The adaptive probability maps of Mahoney's PAQ programs.

use super::logistic::{LIMIT, Logistic};

/// Log odds between two corrections.
const STEP: i32 = 256;

/// Corrections of a context, for log odds -12, -11, ... 12.
const POINTS: usize = 25;

/// By 2^-RATE of the distance moves a correction towards a bit.
const RATE: u32 = 6;

pub(super) struct Refiner {
    /// By context and point: probabilities.
    corrections: Vec<u16>,
    /// Before which point the current bit's log odds lie, and how far beyond, of [`STEP`].
    current: usize,
    part: i32,
}

impl Refiner {
    pub(super) fn new(contexts: usize, logistic: &Logistic) -> Self {
        let points: Vec<u16> =
            (0..POINTS as i32).map(|point| logistic.squash((point - POINTS as i32 / 2) * STEP) as u16).collect();
        Self { corrections: points.repeat(contexts), current: 0, part: 0 }
    }

    /// The probability, in `context`, of a bit whose log odds are `odds`.
    #[inline]
    pub(super) fn refine(&mut self, odds: i32, context: usize) -> i32 {
        let above = odds + LIMIT + 1;
        self.part = above % STEP;
        self.current = context * POINTS + (above / STEP) as usize;
        let [low, high] = [self.corrections[self.current], self.corrections[self.current + 1]].map(i32::from);
        (low * (STEP - self.part) + high * self.part) / STEP
    }

    /// Moves the nearer of the two corrections last used towards `bit`.
    #[inline]
    pub(super) fn update(&mut self, bit: bool) {
        let nearer = &mut self.corrections[self.current + usize::from(2 * self.part >= STEP)];
        let target = if bit { i32::from(u16::MAX) } else { 0 };
        *nearer = (i32::from(*nearer) + ((target - i32::from(*nearer)) >> RATE)) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::super::logistic::LOGISTIC;
    use super::*;

    #[test]
    fn a_refiner_begins_with_what_it_is_given_and_learns_what_is() {
        let mut refiner = Refiner::new(2, &LOGISTIC);
        for odds in [-LIMIT, -1000, 0, 77, LIMIT] {
            let p = LOGISTIC.squash(odds);
            assert!((refiner.refine(odds, 1) - p).abs() <= 1 + p.min((1 << 16) - p) / 2, "{odds}");
        }
        for i in 0..1000 {
            refiner.refine(256, 1);
            refiner.update(i % 8 == 0);
        }
        assert!((4000..14_000).contains(&refiner.refine(256, 1)));
        assert!(refiner.refine(256, 0) > 40_000, "another context");
    }
}
