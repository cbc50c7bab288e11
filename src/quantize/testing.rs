//! Weights for the tests of this module.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// `count` normally distributed weights with standard deviation 0.05, as trained layers have.
pub(super) fn normal_weights(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    let mut normal = || (-2.0 * libm::log(uniform())).sqrt() * libm::cos(std::f64::consts::TAU * uniform());
    (0..count).map(|_| (0.05 * normal()) as f32).collect()
}

/// The weights with all but the largest tenth set to zero.
pub(super) fn pruned(mut weights: Vec<f32>) -> Vec<f32> {
    let mut sorted: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    sorted.sort_by(f32::total_cmp);
    let threshold = sorted[sorted.len() * 9 / 10];
    weights.iter_mut().filter(|w| w.abs() <= threshold).for_each(|w| *w = 0.0);
    weights
}
