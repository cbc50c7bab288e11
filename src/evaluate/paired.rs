//! How much worse a version is than version 0 on the same samples, and how sure that is.

use serde::{Deserialize, Serialize};

use super::{Metric, TargetKind};

/// Standard errors on either side of the mean that hold it 95 times of 100.
const STANDARD_ERRORS: f64 = 1.959_963_984_540_054;

/// By how much a version is worse than version 0, as the mean over the samples of what each lost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
pub struct Drop {
    /// What was measured.
    pub metric: Metric,
    /// In the unit of the metric; positive where the version is worse, whichever way the metric counts.
    pub drop: f64,
    /// Lower end of the 95 % confidence interval, from the differences sample by sample.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Differences between two versions, sample by sample, in two metrics.
#[derive(Debug, Default)]
pub(super) struct Paired {
    samples: f64,
    sums: [f64; 2],
    squares: [f64; 2],
}

impl Paired {
    /// Adds what a sample costs the version, and what it costs version 0.
    pub(super) fn add(&mut self, own: [f64; 2], original: [f64; 2]) {
        self.samples += 1.0;
        for i in 0..2 {
            let worse = own[i] - original[i];
            self.sums[i] += worse;
            self.squares[i] += worse * worse;
        }
    }

    /// The drop in `metric`; `None` where it is no mean over samples of this kind, or not finite.
    pub(super) fn drop(&self, kind: TargetKind, metric: Metric) -> Option<Drop> {
        let i = metrics(kind).iter().position(|known| *known == metric).filter(|_| self.samples > 0.0)?;
        let mean = self.sums[i] / self.samples;
        let variance = (self.squares[i] / self.samples - mean * mean).max(0.0);
        let half = STANDARD_ERRORS * (variance / self.samples).sqrt();
        half.is_finite().then(|| Drop { metric, drop: mean, low: mean - half, high: mean + half })
    }
}

/// The metrics that [`class_losses`] and [`value_losses`] are about, in their order.
const fn metrics(kind: TargetKind) -> [Metric; 2] {
    match kind {
        TargetKind::Class => [Metric::Accuracy, Metric::Top5],
        TargetKind::Value => [Metric::Mse, Metric::Mae],
    }
}

/// What a sample with a class for each of its positions loses in accuracy and among the top five.
pub(super) fn class_losses(outputs: &[f32], labels: &[f64]) -> [f64; 2] {
    let classes = (outputs.len() / labels.len().max(1)).max(1);
    let mut losses = [0.0; 2];
    for (outputs, &label) in outputs.chunks_exact(classes).zip(labels) {
        let rivals = super::metrics::rivals(outputs, label as usize);
        losses[0] += f64::from(u8::from(rivals.is_none_or(|rivals| rivals > 0)));
        losses[1] += f64::from(u8::from(rivals.is_none_or(|rivals| rivals >= 5)));
    }
    losses.map(|loss| loss / labels.len().max(1) as f64)
}

/// The squared and the absolute error of a sample, means over its values.
pub(super) fn value_losses(outputs: &[f32], targets: &[f64]) -> [f64; 2] {
    let mut losses = [0.0; 2];
    for (&output, &target) in outputs.iter().zip(targets) {
        let error = f64::from(output) - target;
        losses[0] += error * error;
        losses[1] += error.abs();
    }
    losses.map(|loss| loss / targets.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_follows_the_differences_of_the_pairs() {
        let mut paired = Paired::default();
        // 100 samples: 6 newly wrong, 2 newly right.
        for sample in 0..100 {
            let (own, original) = match sample {
                0..6 => (1.0, 0.0),
                6..8 => (0.0, 1.0),
                _ => (1.0, 1.0),
            };
            paired.add([own, 0.0], [original, 0.0]);
        }
        let drop = paired.drop(TargetKind::Class, Metric::Accuracy).unwrap();
        // McNemar's variance: (6 + 2 - (6 - 2)^2 / 100) / 100^2.
        let half = STANDARD_ERRORS * (7.84f64).sqrt() / 100.0;
        assert!((drop.drop - 0.04).abs() < 1e-12);
        assert!((drop.low - 0.04 + half).abs() < 1e-12 && (drop.high - 0.04 - half).abs() < 1e-12);
        assert_eq!(paired.drop(TargetKind::Class, Metric::Agreement), None);
    }

    #[test]
    fn losses_of_a_sample_are_those_of_the_metrics() {
        assert_eq!(class_losses(&[0.1, 0.9, 0.9, 0.1], &[1.0, 1.0]), [0.5, 0.0]);
        assert_eq!(class_losses(&[f32::NAN, 0.0], &[0.0]), [1.0, 1.0]);
        assert_eq!(value_losses(&[1.0, 3.0], &[0.0, 1.0]), [2.5, 1.5]);
    }
}
