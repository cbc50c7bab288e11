//! Statistics of a normalisation that stays, brought to what the compressed layers in front of it give.
//!
//! # Source
//! Sun et al., "Hybrid 8-bit floating point training and inference for deep neural networks", NeurIPS 2019, section 3.3:
//! statistics measured again after quantisation. Here they move by as much as those of the calibration samples do, so that what
//! is particular to the samples does not count.

use rayon::prelude::*;

use super::CalibrateError;
use crate::infer::{Channels, Moments, Normalized};

/// Below this, relative to the square of the mean, a variance is what rounding leaves of a constant channel.
const LEAST_VARIANCE: f64 = 1e-9;

/// The most by which a variance grows or shrinks: a channel that changes by more is another one.
const MOST_CHANGE: f64 = 16.0;

/// Mean and variance of each channel of an activation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChannelMoments {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
}

impl ChannelMoments {
    /// Those of what a normalisation reads, over all batches.
    ///
    /// # Errors
    /// [`CalibrateError::Infer`] where an activation has no channels.
    pub(crate) fn of(reached: &Normalized<'_>) -> Result<Self, CalibrateError> {
        let parts = reached.channels()?;
        let sums = parts.into_par_iter().map(|Channels { count: channels, area, values }| {
            let mut sums = vec![(0.0, 0.0, 0.0); channels];
            for (part, values) in values.chunks(area.max(1)).enumerate() {
                let (count, sum, squares) = &mut sums[part % channels];
                *count += values.len() as f64;
                *sum += values.iter().map(|&value| f64::from(value)).sum::<f64>();
                *squares += values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
            }
            sums
        });
        let sums: Vec<Vec<(f64, f64, f64)>> = sums.collect();
        let channels = sums.first().map_or(0, Vec::len);
        let of = |channel: usize| {
            let (count, sum, squares) =
                sums.iter().map(|sums| sums[channel]).fold((0.0, 0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
            let mean = if count > 0.0 { sum / count } else { 0.0 };
            (mean, (squares / f64::max(count, 1.0) - mean * mean).max(0.0))
        };
        let (mean, variance) = (0..channels).map(of).unzip();
        Ok(Self { mean, variance })
    }
}

/// The statistics `mean` and `variance` of a network, moved as those of the calibration samples moved from `before` to `after`;
/// `None` where they did not.
pub(crate) fn moved(
    (mean, variance): (&[f32], &[f32]),
    before: &ChannelMoments,
    after: &ChannelMoments,
) -> Option<Moments> {
    if before == after || before.mean.len() != mean.len() || after.mean.len() != mean.len() {
        return None;
    }
    let changes = before.mean.iter().zip(&after.mean).zip(mean);
    let mean = changes.map(|((before, after), &mean)| (f64::from(mean) + after - before) as f32).collect();
    let varies = |moments: &ChannelMoments, channel: usize| {
        moments.variance[channel] > LEAST_VARIANCE * (moments.mean[channel].powi(2) + LEAST_VARIANCE)
    };
    let variance = variance.iter().enumerate().map(|(channel, &variance)| {
        let does_vary = varies(before, channel) && varies(after, channel);
        let factor = if does_vary { after.variance[channel] / before.variance[channel] } else { 1.0 };
        (f64::from(variance) * factor.clamp(1.0 / MOST_CHANGE, MOST_CHANGE)) as f32
    });
    Some(Moments { mean, variance: variance.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_move_as_those_of_the_samples_do() {
        let moments =
            |mean: [f64; 2], variance: [f64; 2]| ChannelMoments { mean: mean.into(), variance: variance.into() };
        let (before, after) = (moments([1.0, 0.0], [4.0, 0.0]), moments([1.5, 0.0], [1.0, 2.0]));
        let Moments { mean, variance } = moved((&[2.0, 3.0], &[8.0, 5.0]), &before, &after).unwrap();
        assert_eq!((mean, variance), (vec![2.5, 3.0], vec![2.0, 5.0]));
        assert!(moved((&[2.0, 3.0], &[8.0, 5.0]), &before, &before).is_none());
        // What rounding leaves of a channel that became constant is no variance.
        let constant = moments([1.5, 7.0], [1.0, 1e-15]);
        assert_eq!(moved((&[2.0, 3.0], &[8.0, 5.0]), &before, &constant).unwrap().variance, [2.0, 5.0]);
    }
}
