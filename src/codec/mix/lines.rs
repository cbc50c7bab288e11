//! Which way the lines of a block run through the matrix.

use super::model::Grid;

/// Most columns of a channel that an encoder looks for.
const MOST_PERIOD: usize = 64;

/// How the lines of a block lie in the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// Lines are rows, with channels of so many columns.
    Rows { period: usize },
    /// Lines are columns.
    Columns,
}

impl Lines {
    /// For blocks of `rows` of a matrix of `cols` columns: the shorter side makes the lines, so that references are
    /// searched among many cells.
    pub(super) fn of(rows: usize, cols: usize, indices: &[u16], is_stored: impl Fn(u16) -> bool) -> Self {
        if rows > cols { Self::Columns } else { Self::Rows { period: period(cols, indices, is_stored) } }
    }

    /// As a number on the wire; none if it means nothing.
    pub(super) fn from_period(period: usize, cols: usize) -> Option<Self> {
        match period {
            0 => Some(Self::Columns),
            _ => cols.is_multiple_of(period).then_some(Self::Rows { period }),
        }
    }

    /// The number on the wire.
    pub(super) fn period(self) -> usize {
        match self {
            Self::Rows { period } => period,
            Self::Columns => 0,
        }
    }

    /// The cells of a block.
    pub(super) fn grid(self, rows: usize, cols: usize) -> Grid {
        match self {
            Self::Rows { period } => Grid { lines: rows, places: cols, period },
            Self::Columns => Grid { lines: cols, places: rows, period: 1 },
        }
    }

    /// Row, counted from the first of the block, and column.
    #[inline]
    pub(super) fn cell(self, line: usize, place: usize) -> (usize, usize) {
        match self {
            Self::Rows { .. } => (line, place),
            Self::Columns => (place, line),
        }
    }
}

/// The distance of columns at which cells agree most on being stored, beside the distances next to it: a guess at the
/// positions of a kernel, or the width of an image. 1 if none stands out.
fn period(cols: usize, indices: &[u16], is_stored: impl Fn(u16) -> bool) -> usize {
    let stored: Vec<bool> = indices.iter().map(|&symbol| is_stored(symbol)).collect();
    // Pairs of stored cells at a distance, as many as in full rows.
    let pairs = |distance: usize| {
        let of_row = |row: &[bool]| row.iter().zip(&row[distance..]).filter(|(a, b)| **a && **b).count();
        stored.chunks_exact(cols).map(of_row).sum::<usize>() as u128 * cols as u128 / (cols - distance) as u128
    };
    let mut best = (0, 1);
    for period in (2..=MOST_PERIOD.min(cols / 2)).filter(|period| cols.is_multiple_of(*period)) {
        let found = pairs(period);
        let above = found.saturating_sub(pairs(period - 1).max(pairs(period + 1)));
        // What is more than 1 % and 3 square roots above stands out from chance.
        if 100 * above > found && above * above > 9 * found {
            best = best.max((above, period));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells that hold 1 where `is_stored(row, col)`.
    fn indices(rows: usize, cols: usize, is_stored: impl Fn(usize, usize) -> bool) -> Vec<u16> {
        (0..rows * cols).map(|i| u16::from(is_stored(i / cols, i % cols))).collect()
    }

    #[test]
    fn columns_that_repeat_are_found() {
        // Stored at one position of nine, another one in each row, and here and there.
        let cells = indices(50, 90, |row, col| (col + row) % 9 == 4 || (row * 31 + col * col * 17) % 23 == 0);
        assert_eq!(Lines::of(50, 90, &cells, |symbol| symbol == 1), Lines::Rows { period: 9 });
    }

    #[test]
    fn the_shorter_side_makes_the_lines() {
        let mixed = |row: usize, col: usize| {
            let noise = ((row * 1000 + col) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let noise = (noise ^ noise >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (noise ^ noise >> 27).is_multiple_of(5)
        };
        assert_eq!(Lines::of(40, 60, &indices(40, 60, mixed), |symbol| symbol == 1), Lines::Rows { period: 1 });
        assert_eq!(Lines::of(60, 40, &indices(60, 40, mixed), |symbol| symbol == 1), Lines::Columns);
        assert_eq!(Lines::of(60, 40, &[0; 2400], |symbol| symbol == 1), Lines::Columns);
    }

    #[test]
    fn only_periods_that_divide_the_columns_mean_something() {
        let read = |period| Lines::from_period(period, 12);
        assert_eq!((read(0), read(4), read(5)), (Some(Lines::Columns), Some(Lines::Rows { period: 4 }), None));
    }
}
