//! Rows that are exact copies of one another.

use std::collections::HashMap;
use std::hash::Hash;

/// Copies are worth a table of places from one row in 16 on.
const LEAST_SHARE: usize = 16;

/// The distinct rows of a matrix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copies {
    /// The first row of each kind, rising.
    pub(super) firsts: Vec<usize>,
    /// For each row, which of them it equals.
    pub(super) places: Vec<u32>,
}

impl Copies {
    /// Compares `rows`; `None` if too few of them are copies.
    pub(super) fn find<'a, T: Hash + Eq + 'a>(rows: impl ExactSizeIterator<Item = &'a [T]>) -> Option<Self> {
        let count = rows.len();
        let mut kinds: HashMap<&[T], u32> = HashMap::with_capacity(count);
        let mut firsts = Vec::new();
        let mut place = |(row, cells)| {
            *kinds.entry(cells).or_insert_with(|| {
                firsts.push(row);
                firsts.len() as u32 - 1
            })
        };
        let places = rows.enumerate().map(&mut place).collect();
        (firsts.len() + count / LEAST_SHARE < count).then_some(Self { firsts, places })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_placed_at_the_first_of_its_kind() {
        let rows: [&[u8]; 6] = [&[1, 2], &[], &[1, 2], &[2, 1], &[], &[1, 2]];
        let copies = Copies::find(rows.into_iter()).unwrap();
        assert_eq!(copies, Copies { firsts: vec![0, 1, 3], places: vec![0, 1, 0, 2, 1, 0] });
    }

    #[test]
    fn few_copies_are_not_worth_a_table() {
        let rows: Vec<[usize; 1]> = (0..64).map(|i| [i.max(3)]).collect();
        assert_eq!(Copies::find(rows.iter().map(|row| &row[..])), None);
    }
}
