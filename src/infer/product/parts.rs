//! Rows summed a part at a time, and their sums handed on while they are in cache.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

/// Sums of a part: what a first-level cache holds.
const FLOATS_PER_PART: usize = 1 << 13;

/// Multiplications from which on another thread is worth waking.
const WORTH_A_THREAD: usize = 1 << 17;

/// How many threads share work of about `multiplications`: those of the current rayon pool, or one.
pub(super) fn threads_for(multiplications: usize) -> usize {
    rayon::current_num_threads().min(multiplications / WORTH_A_THREAD).max(1)
}

/// Has `sum` compute `width` sums of each of `rows`, on `threads` threads, and calls `spread` with consecutive rows and
/// their sums, rows x `width`. Both see every row once, whatever the threads.
pub(super) fn for_each_part(
    rows: Range<usize>,
    width: usize,
    threads: usize,
    sum: impl Fn(usize, &mut [f32]) + Sync,
    mut spread: impl FnMut(Range<usize>, &[f32]),
) {
    if rows.is_empty() || width == 0 {
        return;
    }
    let rows_per_part = (FLOATS_PER_PART / width).clamp(1, rows.len().div_ceil(threads));
    let part = |start: usize| start..rows.end.min(start + rows_per_part);
    let sum_part = |part: Range<usize>, sums: &mut Vec<f32>| {
        sums.resize(part.len() * width, 0.0);
        part.zip(sums.chunks_exact_mut(width)).for_each(|(row, sums)| sum(row, sums));
    };
    if threads == 1 {
        with_buffer(&SUMS, |sums| {
            for start in rows.clone().step_by(rows_per_part) {
                sum_part(part(start), sums);
                spread(part(start), sums);
            }
        });
        return;
    }
    let starts: Vec<usize> = rows.clone().step_by(rows_per_part).collect();
    let sums: Vec<_> = starts
        .par_iter()
        .map(|&start| {
            let mut sums = Vec::new();
            sum_part(part(start), &mut sums);
            sums
        })
        .collect();
    starts.into_iter().zip(sums).for_each(|(start, sums)| spread(part(start), &sums));
}

/// Floats that a buffer may keep between two uses: 4 MiB.
const MOST_KEPT: usize = 1 << 20;

thread_local! {
    static SUMS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static STAGED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer for inputs; what it holds is of no meaning. A nested call has one of its own.
pub(super) fn with_staged<T>(work: impl FnOnce(&mut Vec<f32>) -> T) -> T {
    with_buffer(&STAGED, work)
}

fn with_buffer<T>(buffer: &'static std::thread::LocalKey<Cell<Vec<f32>>>, work: impl FnOnce(&mut Vec<f32>) -> T) -> T {
    let mut floats = buffer.take();
    let result = work(&mut floats);
    if floats.capacity() <= MOST_KEPT {
        buffer.set(floats);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_summed_and_spread_once() {
        for (rows, width, threads) in
            [(0..0, 3, 1), (5..6, 1, 1), (3..300, 100, 1), (3..300, 100, 4), (0..7, 20_000, 3)]
        {
            let mut seen = Vec::new();
            let sum = |row: usize, sums: &mut [f32]| sums.fill(row as f32);
            for_each_part(rows.clone(), width, threads, sum, |part, sums| {
                assert_eq!(sums.len(), part.len() * width);
                for (row, sums) in part.zip(sums.chunks_exact(width)) {
                    assert!(sums.iter().all(|&sum| sum == row as f32));
                    seen.push(row);
                }
            });
            assert_eq!(seen, rows.collect::<Vec<_>>());
        }
    }
}
