//! A file of a wanted size: each layer's setting by one price of a bit, and the price by the real file.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use super::adapt::{Rates, measure_rates};
use super::pipeline::{Job, compress_planned, plan};
use super::{CompressError, Report};
use crate::artifact::{ArtifactError, folder_of, staged};
use crate::calibrate::{RatePoint, bits_of, choose_rates};
use crate::progress::{Part, Progress};

/// How much of the progress is the measurement of all settings.
const MEASURING_SHARE: f64 = 0.2;

/// Most files that are written on the way to the size.
const MOST_ATTEMPTS: usize = 6;

/// The fraction of the size that is left to what training may add to the file.
const TRAINING_SLACK: f64 = 0.005;

/// A file that leaves no more than this fraction of its size unused is good enough.
const SLACK: f64 = 0.01;

/// Compresses into a file of at most `target_bytes`, and not much less.
///
/// # Errors
/// As [`compress`](super::compress); [`CompressError::Target`] where even the fewest bits take more.
pub(super) fn compress_to(
    job: Job<'_>,
    target_bytes: u64,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Report, CompressError> {
    let started = Instant::now();
    let measuring = Part { whole: progress, from: 0.0, to: MEASURING_SHARE };
    let measured = measure_rates(&job, &plan(job.model, job.recipe).tasks, &measuring)?;
    let layers: Vec<&[RatePoint]> = measured.iter().map(|(_, points)| points.as_slice()).collect();
    let folder = tempfile::tempdir_in(folder_of(out)).map_err(ArtifactError::from)?;
    let (file, candidate) = (folder.path().join("best"), folder.path().join("candidate"));
    let trains = job.recipe.finetune().is_some();
    // Training moves shared values, not symbols, but the codebooks may then take other bytes.
    let wanted_bytes = if trains { (target_bytes as f64 * (1.0 - TRAINING_SLACK)) as u64 } else { target_bytes };
    let attempts_to = if trains { MEASURING_SHARE * 2.0 } else { 1.0 };
    let mut budget = Budget::new(&job, wanted_bytes);
    let mut best: Option<(Report, Rates)> = None;
    let mut smallest = u64::MAX;
    for attempt in 0..MOST_ATTEMPTS {
        let chosen = choose_rates(&layers, budget.bits);
        let rates = measured.iter().zip(&chosen).filter_map(|((name, _), point)| Some((name.clone(), (*point)?)));
        let rates: Rates = rates.collect();
        let share = (attempts_to - MEASURING_SHARE) / MOST_ATTEMPTS as f64;
        let from = MEASURING_SHARE + attempt as f64 * share;
        let part = Part { whole: progress, from, to: from + share };
        let report = compress_planned(Job { rates: Some(&rates), trains: false, ..job }, &candidate, &part)?;
        let bytes = report.artifact_bytes;
        smallest = smallest.min(bytes);
        if bytes <= wanted_bytes && best.as_ref().is_none_or(|(best, _)| best.artifact_bytes < bytes) {
            std::fs::rename(&candidate, &file).map_err(ArtifactError::from)?;
            best = Some((report, rates));
        }
        let is_near = bytes <= wanted_bytes && (wanted_bytes - bytes) as f64 <= SLACK * wanted_bytes as f64;
        if is_near || !budget.learn(bits_of(&chosen), bytes) {
            break;
        }
    }
    let Some((mut report, rates)) = best else {
        return Err(CompressError::Target { target_bytes, smallest_bytes: smallest });
    };
    if trains {
        let part = Part { whole: progress, from: attempts_to, to: 1.0 };
        let trained = compress_planned(Job { rates: Some(&rates), ..job }, &candidate, &part)?;
        if trained.artifact_bytes <= target_bytes {
            std::fs::rename(&candidate, &file).map_err(ArtifactError::from)?;
            report = trained;
        } else {
            report
                .notes
                .push("trained values made the file larger than the target, so untrained ones were kept".to_owned());
        }
    }
    staged::copy(&file, out).map_err(ArtifactError::from)?;
    let mut points: HashMap<String, Vec<RatePoint>> = measured.into_iter().collect();
    for layer in report.calibration.iter_mut().flat_map(|calibration| &mut calibration.layers) {
        layer.points = points.remove(&layer.name).unwrap_or_default();
    }
    report.seconds = started.elapsed().as_secs_f64();
    progress.report(1.0, "write", "artifact written");
    Ok(report)
}

/// The bits of estimates that come to the wanted size.
struct Budget {
    target_bits: f64,
    bits: f64,
    /// Estimated bits that were too few and too many, with the bits of the files.
    below: Option<(f64, f64)>,
    above: Option<(f64, f64)>,
}

impl Budget {
    /// Begins with what the file holds beside the layers as it is in the upload.
    fn new(job: &Job<'_>, target_bytes: u64) -> Self {
        let weights = job.model.weights().iter();
        let layers: u64 =
            weights.map(|weight| (weight.dims.iter().product::<usize>() * weight.dtype.size_bytes()) as u64).sum();
        let others = job.model.size_bytes().saturating_sub(layers);
        let target_bits = 8.0 * target_bytes as f64;
        let bits = (target_bits - 8.0 * others as f64).max(target_bits / 8.0);
        Self { target_bits, bits, below: None, above: None }
    }

    /// Takes in what a file came to; false where there is nothing left to try.
    fn learn(&mut self, estimated: f64, bytes: u64) -> bool {
        let bits = 8.0 * bytes as f64;
        let side = if bits <= self.target_bits { &mut self.below } else { &mut self.above };
        if side.is_some_and(|(known, _)| known == estimated) {
            return false;
        }
        *side = Some((estimated, bits));
        // A little below the target, so that the next one meets it.
        let wanted = self.target_bits * (1.0 - SLACK / 2.0);
        self.bits = match (self.below, self.above) {
            (Some((low, low_bits)), Some((high, high_bits))) if high_bits > low_bits => {
                low + (high - low) * ((wanted - low_bits) / (high_bits - low_bits)).clamp(0.05, 0.95)
            }
            _ => (estimated + wanted - bits).max(estimated / 4.0),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_closes_in_on_the_size() {
        let mut budget = Budget { target_bits: 80_000.0, bits: 70_000.0, below: None, above: None };
        // Files take a tenth more than estimated, and 5,000 bits beside the layers.
        let file = |bits: f64| ((1.1 * bits + 5_000.0) / 8.0) as u64;
        let mut last = 0;
        for _ in 0..4 {
            last = file(budget.bits);
            budget.learn(budget.bits, last);
        }
        assert!((9_850..=10_000).contains(&last), "{last}");
        assert!(!budget.learn(1.0, 1) || !budget.learn(1.0, 1), "the same estimate again leads nowhere");
    }
}
