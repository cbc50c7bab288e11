//! Statistics of the inputs of a product that a run layer by layer has reached.

use std::ops::Range;

use super::{CalibrateError, Problem};
use crate::infer::{InferError, Reached};
use crate::progress::Progress;
use crate::tensor::{Statistics, StatisticsBuilder};

/// Most columns that statistics are taken of. Where there are more, positions of a convolution, say, runs of them are taken
/// evenly.
const MOST_COLUMNS: usize = 1 << 15;

/// Columns of a run.
const RUN: usize = 16;

/// Columns that are gathered at a time.
const BLOCK: usize = 1024;

/// Memory that a calibration may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For the statistics of one layer, and the work on them.
    pub(crate) layer_bytes: u64,
    /// For the activations of all samples.
    pub(crate) activation_bytes: u64,
    /// For the weights of layers that share a codebook, where they count by their inputs.
    pub(crate) shared_bytes: u64,
}

/// What a calibration may take where nobody says otherwise.
pub(crate) const LIMITS: Limits = Limits { layer_bytes: 2 << 30, activation_bytes: 2 << 30, shared_bytes: 4 << 30 };

/// Bytes that the statistics of the layer `name`, of `rows x cols` and so many groups, and the work on them take at most.
///
/// # Errors
/// [`CalibrateError::LayerTooLarge`].
pub(crate) fn check_layer(
    name: &str,
    (rows, cols): (usize, usize),
    groups: usize,
    limits: Limits,
) -> Result<u64, CalibrateError> {
    let moments = StatisticsBuilder::size_bytes(groups, cols);
    // One group's block of columns, in f32 and f64.
    let block = (BLOCK as u64).saturating_mul((groups as u64).saturating_mul(cols as u64)).saturating_mul(12);
    let needed_bytes = moments.saturating_add(block).saturating_add(Problem::size_bytes(rows, cols, groups));
    if needed_bytes > limits.layer_bytes {
        let (layer, limit_bytes) = (name.to_owned(), limits.layer_bytes);
        return Err(CalibrateError::LayerTooLarge { layer, needed_bytes, limit_bytes });
    }
    Ok(needed_bytes)
}

/// Takes the statistics of the columns that `reached` multiplies its weight, of `rows x cols`, by.
///
/// # Errors
/// [`CalibrateError::LayerTooLarge`] before anything is allocated; [`CalibrateError::NotFinite`]; [`CalibrateError::Infer`];
/// [`CalibrateError::Cancelled`].
pub(crate) fn collect(
    reached: &Reached<'_>,
    shape: (usize, usize),
    limits: Limits,
    progress: &dyn Progress,
) -> Result<Statistics, CalibrateError> {
    let groups = reached.kernel.groups();
    check_layer(reached.name, shape, groups, limits)?;
    let (_, cols) = shape;
    let run = |error: String| CalibrateError::Infer(InferError::Run { reason: error });
    let mut builder = StatisticsBuilder::new(groups, cols);
    let per_batch = MOST_COLUMNS.div_ceil(reached.activations.len().max(1));
    for activation in &reached.activations {
        let columns = reached.kernel.columns(activation).map_err(|error| run(format!("{error:#}")))?;
        for ranges in blocks(&chosen(columns, per_batch)) {
            progress.check()?;
            let gathered = reached.kernel.gather(activation, &ranges).map_err(|error| run(format!("{error:#}")))?;
            builder.add(&gathered, ranges.iter().map(ExactSizeIterator::len).sum());
        }
    }
    let statistics = builder.finish();
    if !statistics.is_finite() {
        return Err(CalibrateError::NotFinite { layer: reached.name.to_owned() });
    }
    Ok(statistics)
}

/// Runs of columns, evenly spread, of at most about `most` columns in all.
fn chosen(columns: usize, most: usize) -> Vec<Range<usize>> {
    if columns <= most {
        return (0..columns).step_by(RUN).map(|start| start..columns.min(start + RUN)).collect();
    }
    let runs = (most / RUN).max(1);
    let last = columns - RUN.min(columns);
    (0..runs).map(|run| run * last / (runs - 1).max(1)).map(|start| start..start + RUN.min(columns)).collect()
}

/// The ranges in lists of at most [`BLOCK`] columns.
fn blocks(ranges: &[Range<usize>]) -> Vec<Vec<Range<usize>>> {
    ranges.chunks(BLOCK / RUN).map(<[_]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_columns_are_all_taken_and_many_are_taken_evenly() {
        let all: Vec<usize> = chosen(100, 100).into_iter().flatten().collect();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        let some = chosen(100_000, 160);
        assert_eq!(some.len(), 10);
        assert_eq!((some[0].start, some[9].end), (0, 100_000));
        assert!(some.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert_eq!(blocks(&chosen(5_000, 5_000)).iter().map(|ranges| ranges.len()).max(), Some(BLOCK / RUN));
    }
}
