//! Samples mixed in pairs, as they are or as the frozen part sees them: what no data set has, and a teacher still knows what to
//! answer.
//!
//! # Source
//! Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", arXiv:1710.09412; with a teacher's outputs
//! in place of mixed labels: Beyer et al., "Knowledge distillation: a good teacher is patient and consistent",
//! arXiv:2106.05237, section 3; inside a network: Verma et al., "Manifold mixup", ICML 2019, arXiv:1806.05236.

use burn_backend::DType;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::scalar::Scalar;
use super::value::{Tensor, Value};

/// Tells these draws from others of the same seed.
const DRAWS: u64 = 0x6d69_7875_7000;

/// Values in which each of `samples` samples, along the first axis, is a weighted mean of it and another, drawn by `seed` and
/// `number`. `None` where one of `values` is no tensor of single precision, or there is but one sample.
pub(super) fn mixed(values: &[Value], samples: usize, seed: u64, number: u64) -> Option<Vec<Value>> {
    if samples < 2 || values.is_empty() {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ DRAWS);
    random.set_stream(number);
    let distance = 1 + random.next_u32() as usize % (samples - 1);
    let shares: Vec<f32> = (0..samples).map(|_| random.next_u32() as f32 / u32::MAX as f32).collect();
    let mix = |value: &Value| {
        let Value::Float(tensor) = value else { return None };
        let (dims, plain) = (tensor.dims(), tensor.contiguous());
        if dims.first() != Some(&samples) || plain.dtype() != DType::F32 {
            return None;
        }
        let plain = f32::view(&plain);
        let width = plain.len() / samples;
        let row = |sample: usize| &plain[sample % samples * width..][..width];
        let mean = |sample: usize| {
            let share = shares[sample];
            let pairs = row(sample).iter().zip(row(sample + distance));
            pairs.map(move |(own, other)| share * own + (1.0 - share) * other)
        };
        Some(Value::Float(Tensor::Plain(f32::tensor(&dims, (0..samples).flat_map(mean).collect()))))
    };
    values.iter().map(mix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finetune::value::IntTensor;

    fn value(values: &[f32]) -> Value {
        Value::Float(Tensor::Plain(f32::tensor(&[3, values.len() / 3], values.to_vec())))
    }

    #[test]
    fn every_sample_becomes_a_mean_of_two_and_the_draw_decides_which() {
        let plain = value(&[0.0, 0.0, 1.0, 10.0, 2.0, 20.0]);
        let numbers = |number| {
            let mixed = mixed(std::slice::from_ref(&plain), 3, 7, number).unwrap();
            f32::view(mixed[0].float().unwrap().inner()).to_vec()
        };
        let values = numbers(1);
        assert!(values.chunks(2).all(|row| (row[1] - 10.0 * row[0]).abs() < 1e-4 && (0.0..=2.0).contains(&row[0])));
        assert_eq!(values, numbers(1));
        assert_ne!(values, numbers(2));
    }

    #[test]
    fn codes_are_not_mixed() {
        let codes = Value::Int(IntTensor { dims: vec![3, 2], data: vec![0; 6].into() });
        assert!(mixed(&[value(&[0.0; 6]), codes], 3, 0, 0).is_none());
        assert!(mixed(&[value(&[0.0; 6])], 1, 0, 0).is_none());
    }
}
