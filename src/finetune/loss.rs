//! Losses over a batch and their gradients, and how many samples were right.

use burn_flex::FlexTensor;

use super::error::TuneError;
use super::scalar::{Scalar, by_type};
use super::settings::{Loss, Teacher};
use super::tape::record;
use super::value::Tensor;

/// What a sample's outputs are compared with.
pub(super) struct Goal<'a> {
    pub loss: Loss,
    /// A class a sample, or as many values as outputs.
    pub target: Option<&'a [f64]>,
    /// The original network's outputs, as many.
    pub teacher: Option<(Teacher, &'a [f32])>,
}

/// Sums over samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    /// Of the loss.
    pub loss: f64,
    /// Of samples whose largest output is their class, or of the mean squared difference to the targets.
    pub quality: f64,
}

/// The loss of `outputs` (samples, outputs) times `scale`, as a tensor of one number, and the sums that make it up.
///
/// # Errors
/// [`TuneError::NoTarget`], [`TuneError::TargetLength`], [`TuneError::Label`].
pub(super) fn loss(outputs: &Tensor, goal: &Goal<'_>, scale: f64) -> Result<(Tensor, Sums), TuneError> {
    let dims = outputs.dims();
    let samples = dims.first().copied().unwrap_or(1);
    let width = dims.iter().skip(1).product::<usize>();
    goal.check(samples, width)?;
    let values = outputs.contiguous();
    by_type!(values, T => {
        let mut gradient = Vec::with_capacity(samples * width);
        let mut sums = Sums::default();
        for (sample, row) in T::view(&values).chunks_exact(width.max(1)).enumerate() {
            let row: Vec<f64> = row.iter().map(|value| value.f64()).collect();
            let mut slopes = vec![0.0; width];
            goal.add(sample, &row, &mut sums, &mut slopes);
            gradient.extend(slopes.iter().map(|&slope| T::of(slope * scale)));
        }
        let total = T::tensor(&[1], vec![T::of(sums.loss * scale)]);
        let gradient = T::tensor(&dims, gradient);
        // The loss is the root, whose own gradient is 1.
        Ok((record([outputs], total, move |_: &FlexTensor, _| [Some(gradient.clone())]), sums))
    })
}

impl Goal<'_> {
    fn check(&self, samples: usize, width: usize) -> Result<(), TuneError> {
        let each = if self.loss == Loss::CrossEntropy { 1 } else { width };
        if self.target.is_none() && self.teacher.is_none() {
            return Err(TuneError::NoTarget);
        }
        let length = |found: usize, each: usize| match found == samples * each {
            true => Ok(()),
            false => Err(TuneError::TargetLength { expected: each, found: found / samples.max(1) }),
        };
        if let Some(target) = self.target {
            length(target.len(), each)?;
            let is_class = |label: f64| label >= 0.0 && label < width as f64 && label.fract() == 0.0;
            let bad = target.iter().find(|&&label| self.loss == Loss::CrossEntropy && !is_class(label));
            if let Some(&label) = bad {
                return Err(TuneError::Label { label, classes: width });
            }
        }
        self.teacher.map_or(Ok(()), |(_, outputs)| length(outputs.len(), width))
    }

    /// Adds the loss of a sample to `sums` and its gradient by the outputs to `slopes`.
    fn add(&self, sample: usize, row: &[f64], sums: &mut Sums, slopes: &mut [f64]) {
        let share = self.teacher.map_or(0.0, |(teacher, _)| if self.target.is_some() { teacher.weight } else { 1.0 });
        match (self.loss, self.target) {
            (Loss::CrossEntropy, Some(classes)) => {
                let class = classes[sample] as usize;
                sums.quality += f64::from(u8::from(largest(row) == class));
                let logs = log_softmax(row, 1.0);
                sums.loss -= (1.0 - share) * logs[class];
                for (place, (slope, log)) in slopes.iter_mut().zip(&logs).enumerate() {
                    *slope += (1.0 - share) * (libm::exp(*log) - f64::from(u8::from(place == class)));
                }
            }
            (Loss::Mse, Some(target)) => {
                let target = &target[sample * row.len()..][..row.len()];
                sums.quality += squares(row, target.iter().copied(), 1.0, &mut vec![0.0; row.len()]);
                sums.loss += squares(row, target.iter().copied(), 1.0 - share, slopes);
            }
            (_, None) => {}
        }
        let Some((teacher, outputs)) = self.teacher else { return };
        let outputs = outputs[sample * row.len()..][..row.len()].iter().map(|&output| f64::from(output));
        match self.loss {
            Loss::Mse => sums.loss += squares(row, outputs, share, slopes),
            Loss::CrossEntropy => {
                let temperature = teacher.temperature;
                let own = log_softmax(row, temperature);
                let other = log_softmax(&outputs.collect::<Vec<_>>(), temperature);
                for (slope, (own, other)) in slopes.iter_mut().zip(own.iter().zip(&other)) {
                    let (p, q) = (libm::exp(*other), libm::exp(*own));
                    // The square of the temperature keeps gradients as large as those of the labels.
                    sums.loss += share * temperature * temperature * p * (other - own);
                    *slope += share * temperature * (q - p);
                }
            }
        }
    }
}

/// `share` of the mean squared difference; its gradient is added to `slopes`.
fn squares(row: &[f64], target: impl Iterator<Item = f64>, share: f64, slopes: &mut [f64]) -> f64 {
    let mut sum = 0.0;
    for ((value, target), slope) in row.iter().zip(target).zip(slopes) {
        sum += (value - target) * (value - target);
        *slope += share * 2.0 * (value - target) / row.len() as f64;
    }
    share * sum / row.len().max(1) as f64
}

fn log_softmax(row: &[f64], temperature: f64) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|&value| libm::exp((value - max) / temperature)).sum();
    row.iter().map(|&value| (value - max) / temperature - libm::log(sum)).collect()
}

/// Where the largest value stands, of several the first.
fn largest(row: &[f64]) -> usize {
    let mut best = 0;
    for (place, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = place;
        }
    }
    best
}
