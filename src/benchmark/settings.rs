//! What is measured, and for how long.

use std::collections::BTreeSet;

use super::BenchmarkError;
use crate::model::Port;

/// Batches where none is asked for: one sample, and as many as a busy server gathers.
const DEFAULT_BATCHES: [usize; 2] = [1, 32];
/// Seconds that a timing takes where nothing else is asked for.
const DEFAULT_SECONDS: f64 = 2.0;
/// Largest number of samples at a time.
const MAX_BATCH: usize = 1 << 16;
/// Most batches, and most numbers of threads.
const MAX_VALUES: usize = 16;
/// Shortest and longest timing.
const SECONDS: std::ops::RangeInclusive<f64> = 0.01..=60.0;
/// Most time of a benchmark, warm-up included.
const MAX_SECONDS: f64 = 3600.0;

/// What is measured, and for how long: a timing for each contender, batch and number of threads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Samples at a time; 1 and 32 when empty, or what the graph takes if it says so.
    pub batches: Vec<usize>,
    /// Threads of a prediction; 1 and all of the current rayon pool when empty.
    pub threads: Vec<usize>,
    /// Seconds of a timing, warm-up included; 2 by default. A prediction that takes longer is made once to warm up and
    /// once for each figure.
    pub seconds: Option<f64>,
}

/// Settings that are within their ranges and fit a graph.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Checked {
    /// Ascending.
    pub(super) batches: Vec<usize>,
    /// Ascending.
    pub(super) threads: Vec<usize>,
    pub(super) seconds: f64,
}

/// Checks, without running anything, that `settings` fit a graph with these inputs, this many contenders and a machine of
/// `max_threads` threads. Returns the batches that will be timed.
///
/// # Errors
/// A [`BenchmarkError`] that names the first fault.
pub fn check(
    settings: &Settings,
    inputs: &[Port],
    contenders: usize,
    max_threads: usize,
) -> Result<Vec<usize>, BenchmarkError> {
    Ok(settings.checked(inputs, contenders, max_threads)?.batches)
}

impl Settings {
    pub(super) fn checked(
        &self,
        inputs: &[Port],
        contenders: usize,
        max_threads: usize,
    ) -> Result<Checked, BenchmarkError> {
        let threads = within("threads", &self.threads, &[1, max_threads], max_threads)?;
        let batches = match fixed_batch(inputs) {
            None => within("batch", &self.batches, &DEFAULT_BATCHES, MAX_BATCH)?,
            Some(fixed) => match self.batches.iter().find(|&&asked| asked != fixed) {
                Some(&asked) => return Err(BenchmarkError::FixedBatch { fixed, asked }),
                None => vec![fixed],
            },
        };
        let seconds = self.seconds.unwrap_or(DEFAULT_SECONDS);
        if !SECONDS.contains(&seconds) {
            let expected = format!("{} to {}", SECONDS.start(), SECONDS.end());
            return Err(BenchmarkError::OutOfRange { setting: "seconds", expected, found: seconds.to_string() });
        }
        let timings = batches.len() * threads.len() * contenders;
        if timings as f64 * seconds > MAX_SECONDS {
            return Err(BenchmarkError::TooLong { timings, seconds, max_seconds: MAX_SECONDS });
        }
        Ok(Checked { batches, threads, seconds })
    }
}

/// The values asked for, or else `default`: each once, ascending, from 1 to `max`.
fn within(setting: &'static str, asked: &[usize], default: &[usize], max: usize) -> Result<Vec<usize>, BenchmarkError> {
    let values: BTreeSet<usize> = if asked.is_empty() { default } else { asked }.iter().copied().collect();
    if let Some(found) = values.iter().find(|value| !(1..=max).contains(*value)) {
        let expected = format!("1 to {max}");
        return Err(BenchmarkError::OutOfRange { setting, expected, found: found.to_string() });
    }
    if values.len() > MAX_VALUES {
        let expected = format!("at most {MAX_VALUES} values");
        return Err(BenchmarkError::OutOfRange { setting, expected, found: values.len().to_string() });
    }
    Ok(values.into_iter().collect())
}

/// The samples that a graph takes at a time, where no input leaves that open.
fn fixed_batch(inputs: &[Port]) -> Option<usize> {
    let mut firsts = inputs.iter().filter_map(|port| port.dims.first());
    let fixed = (*firsts.next()?)?;
    firsts.all(Option::is_some).then_some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(first: Option<usize>) -> Port {
        Port { name: "x".into(), datatype: "FP32".into(), dims: vec![first, Some(4)] }
    }

    fn checked(settings: &Settings, first: Option<usize>) -> Result<Checked, String> {
        settings.checked(&[port(first)], 2, 2).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_sorted_and_each_is_taken_once() {
        let settings = Settings { batches: vec![32, 1, 32], threads: vec![1, 1], seconds: Some(0.5) };
        let expected = Checked { batches: vec![1, 32], threads: vec![1], seconds: 0.5 };
        assert_eq!(checked(&settings, None), Ok(expected));
    }

    #[test]
    fn a_graph_that_says_its_batch_gets_that_one() {
        let batches = |batches: &[usize]| {
            let settings = Settings { batches: batches.to_vec(), ..Settings::default() };
            checked(&settings, Some(8)).map(|checked| checked.batches)
        };
        assert_eq!(batches(&[]), Ok(vec![8]));
        assert_eq!(batches(&[8]), Ok(vec![8]));
        assert_eq!(batches(&[1, 8]), Err("the graph takes 8 samples at a time, not 1".to_owned()));
        assert_eq!(fixed_batch(&[port(Some(8)), port(None)]), None);
        assert_eq!(fixed_batch(&[]), None);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let fault = |settings: Settings| checked(&settings, None).unwrap_err();
        let batches = |batches: Vec<usize>| Settings { batches, ..Settings::default() };
        assert_eq!(fault(batches(vec![0])), "batch must be 1 to 65536, not 0");
        assert_eq!(fault(batches((1..18).collect())), "batch must be at most 16 values, not 17");
        let threads = Settings { threads: vec![1 << 20], ..Settings::default() };
        assert!(fault(threads).starts_with("threads must be 1 to "));
        for seconds in [0.0, f64::NAN, -1.0, 61.0] {
            let settings = Settings { seconds: Some(seconds), ..Settings::default() };
            assert_eq!(fault(settings), format!("seconds must be 0.01 to 60, not {seconds}"));
        }
        let long = Settings { batches: (1..=16).collect(), threads: vec![1], seconds: Some(60.0) };
        assert_eq!(check(&long, &[port(None)], 3, 2).map_err(|e| e.to_string()), Ok((1..=16).collect()));
        assert!(check(&long, &[port(None)], 4, 2).unwrap_err().to_string().starts_with("64 timings of 60 s"));
    }
}
