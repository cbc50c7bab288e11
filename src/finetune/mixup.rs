//! Samples mixed in pairs: inputs that no data set has, on which a teacher still knows what to answer.
//!
//! # Source
//! Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", arXiv:1710.09412; with a teacher's outputs
//! in place of mixed labels: Beyer et al., "Knowledge distillation: a good teacher is patient and consistent",
//! arXiv:2106.05237, section 3.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::samples::Batch;
use crate::infer::ArrayData;

/// Replaces each of `samples` samples by a weighted mean of it and another, drawn by `seed` and `number`. False, and nothing
/// changes, where an input is no array of float32, or there is but one sample.
pub(super) fn mix(batch: &mut Batch, samples: usize, seed: u64, number: u64) -> bool {
    let is_real = |data: &ArrayData| matches!(data, ArrayData::F32(values) if values.len() % samples == 0);
    if samples < 2 || batch.inputs.is_empty() || !batch.inputs.iter().all(|(_, array)| is_real(&array.data)) {
        return false;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    let distance = 1 + random.next_u32() as usize % (samples - 1);
    let shares: Vec<f32> = (0..samples).map(|_| random.next_u32() as f32 / u32::MAX as f32).collect();
    for (_, array) in &mut batch.inputs {
        let ArrayData::F32(values) = &mut array.data else { continue };
        let (width, plain) = (values.len() / samples, values.clone());
        for (sample, share) in shares.iter().enumerate() {
            let other = (sample + distance) % samples * width;
            let own = &mut values[sample * width..][..width];
            own.iter_mut().zip(&plain[other..]).for_each(|(own, other)| *own = share * *own + (1.0 - share) * other);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::Array;

    fn batch(data: ArrayData) -> Batch {
        Batch { inputs: vec![("x".to_owned(), Array { dims: vec![3, 2], data })], target: None }
    }

    #[test]
    fn every_sample_becomes_a_mean_of_two_and_the_draw_decides_which() {
        let plain = vec![0.0, 0.0, 1.0, 10.0, 2.0, 20.0];
        let mixed = |number| {
            let mut batch = batch(ArrayData::F32(plain.clone()));
            assert!(mix(&mut batch, 3, 7, number));
            match &batch.inputs[0].1.data {
                ArrayData::F32(values) => values.clone(),
                _ => unreachable!("mixing keeps the type"),
            }
        };
        let values = mixed(1);
        assert!(values.chunks(2).all(|row| (row[1] - 10.0 * row[0]).abs() < 1e-4 && (0.0..=2.0).contains(&row[0])));
        assert_eq!(values, mixed(1));
        assert_ne!(values, mixed(2));
    }

    #[test]
    fn codes_are_not_mixed() {
        assert!(!mix(&mut batch(ArrayData::I64(vec![0; 6])), 3, 0, 0));
        assert!(!mix(&mut batch(ArrayData::F32(vec![0.0; 2])), 1, 0, 0));
    }
}
