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
    /// For blocks of `rows` of a matrix of `cols` columns: the shorter side makes the lines, unless columns repeat.
    pub(super) fn of(rows: usize, cols: usize, indices: &[u16], is_stored: impl Fn(u16) -> bool) -> Self {
        let period = period(cols, indices, is_stored);
        if period == 1 && rows > cols { Self::Columns } else { Self::Rows { period } }
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

/// The distance of columns in which most cells agree on being stored: a guess at the positions of a kernel, or the width
/// of an image. 1 if none stands out.
fn period(cols: usize, indices: &[u16], is_stored: impl Fn(u16) -> bool) -> usize {
    let stored: Vec<bool> = indices.iter().map(|&symbol| is_stored(symbol)).collect();
    let (cells, total) = (stored.len() as u128, stored.iter().filter(|&&stored| stored).count() as u128);
    let mut best = (0, 1);
    for period in (2..=MOST_PERIOD.min(cols / 2)).filter(|period| cols.is_multiple_of(*period)) {
        let pairs = |row: &[bool]| row.iter().zip(&row[period..]).filter(|(a, b)| **a && **b).count() as u128;
        let compared = cells / cols as u128 * (cols - period) as u128;
        // Chance makes as many; what is more than 2 % and 6 of its square roots above it, stands out.
        let chance = total * total * compared / (cells * cells);
        let above = stored.chunks_exact(cols).map(pairs).sum::<u128>().saturating_sub(chance);
        if 50 * above > chance && above * above > 36 * chance {
            best = best.max((above * cells / compared, period));
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
    fn without_repeats_the_shorter_side_makes_the_lines() {
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
