//! Which row of a block changes which: trees of rows, and the order in which they are told.
//!
//! # Format
//! A dictionary ([`super::super::huffman`]) over the numbers from 0 to the rows of the block, and a bit string with a code
//! word for each row, in order: 0 where it has no parent, else 1 and the number of its parent in the block. At most 64 rows
//! stand above a row, and none above itself. A dictionary of no words stands for rows without parents; no bit string follows.
//!
//! Rows are told in *preorder*: those without a parent in order, and behind each row its children, in order too, each with what
//! is below it.

use super::super::DecodeError;
use super::super::bits::{BitReader, BitWriter};
use super::super::huffman::{Code, Decoder, read_lengths, write_lengths};

/// Most rows above a row that a reader takes.
const MOST_ABOVE: usize = 64;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Forest {
    /// No row has a parent.
    Apart { rows: usize },
    Trees {
        /// Of each row, 0 or its parent's number and 1.
        parents: Vec<u16>,
        /// All rows, in preorder.
        order: Vec<u16>,
    },
}

impl Forest {
    /// # Panics
    /// If `parents` are no trees, or too deep, or more than 65,535.
    pub(super) fn new(parents: &[Option<u32>]) -> Self {
        if parents.iter().all(Option::is_none) {
            return Self::Apart { rows: parents.len() };
        }
        let number = |parent: &Option<u32>| parent.map_or(0, |parent| parent as u16 + 1);
        Self::checked(parents.iter().map(number).collect()).expect("parents along a tree")
    }

    /// Takes the parents of `rows` rows from the front of `input`.
    pub(super) fn take(input: &mut &[u8], rows: usize) -> Result<Self, DecodeError> {
        if let Some((0, rest)) = input.split_first() {
            *input = rest;
            return Ok(Self::Apart { rows });
        }
        // Rows that have parents, and those that do not, are two words at least: each takes a bit.
        let needed = rows.div_ceil(8);
        if needed > input.len() {
            return Err(DecodeError::UnexpectedEof { needed, found: input.len() });
        }
        let lengths = read_lengths(rows + 1, input)?;
        if lengths.iter().flatten().count() < 2 {
            return Err(DecodeError::NotTrees { rows });
        }
        let decoder = Decoder::new(&lengths, None, rows)?;
        let mut bits = BitReader::new(input);
        let parents = (0..rows).map(|_| decoder.symbol(&mut bits)).collect::<Result<_, _>>()?;
        *input = bits.into_rest()?;
        Self::checked(parents)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let Self::Trees { parents, .. } = self else { return out.push(0) };
        let mut counts = vec![0; parents.len() + 1];
        parents.iter().for_each(|&parent| counts[usize::from(parent)] += 1);
        let code = Code::for_counts(&counts);
        write_lengths(code.lengths(), out);
        let mut bits = BitWriter::default();
        parents.iter().for_each(|&parent| code.push(parent, &mut bits));
        out.extend(bits.into_bytes());
    }

    /// All rows in preorder, each with its parent.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (usize, Option<usize>)> {
        let rows = match self {
            Self::Apart { rows } => *rows,
            Self::Trees { order, .. } => order.len(),
        };
        (0..rows).map(|place| match self {
            Self::Apart { .. } => (place, None),
            Self::Trees { parents, order } => {
                let row = usize::from(order[place]);
                (row, usize::from(parents[row]).checked_sub(1))
            }
        })
    }

    fn checked(parents: Vec<u16>) -> Result<Self, DecodeError> {
        let rows = parents.len();
        let not_trees = DecodeError::NotTrees { rows };
        // The first child of each row, and of none, and the next sibling: 0 or a row's number and 1.
        let (mut children, mut siblings) = (vec![0u16; rows + 1], vec![0u16; rows]);
        for (row, &parent) in parents.iter().enumerate().rev() {
            siblings[row] = std::mem::replace(&mut children[usize::from(parent)], row as u16 + 1);
        }
        let mut order = Vec::with_capacity(rows);
        let (mut next, mut above) = (children[0], 0);
        while let Some(row) = next.checked_sub(1) {
            order.push(row);
            next = children[usize::from(row) + 1];
            above += usize::from(next > 0);
            if above > MOST_ABOVE {
                return Err(not_trees);
            }
            // Behind the last of its siblings, a row's parent has a sibling, or the parent's parent.
            let mut last = row;
            while next == 0 {
                next = siblings[usize::from(last)];
                let Some(parent) = parents[usize::from(last)].checked_sub(1).filter(|_| next == 0) else { break };
                (last, above) = (parent, above - 1);
            }
        }
        // Rows in a circle are reached from nowhere.
        if order.len() == rows { Ok(Self::Trees { parents, order }) } else { Err(not_trees) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(parents: &[Option<u32>]) -> Result<Forest, DecodeError> {
        Forest::checked(parents.iter().map(|parent| parent.map_or(0, |parent| parent as u16 + 1)).collect())
    }

    #[test]
    fn children_follow_their_parent_in_order() {
        let forest = Forest::new(&[Some(3), None, Some(3), None, Some(0), Some(3), None]);
        let rows: Vec<_> = forest.rows().collect();
        let parents = [None, None, Some(3), Some(0), Some(3), Some(3), None];
        assert_eq!(rows, [1, 3, 0, 4, 2, 5, 6].into_iter().zip(parents).collect::<Vec<_>>());
    }

    #[test]
    fn parents_are_a_dictionary_and_code_words() {
        let forest = Forest::new(&[None, Some(0), None, Some(0)]);
        let mut out = Vec::new();
        forest.write(&mut out);
        // Two of five are used: g = 0 (0000), gaps 0 (1), 0 (1); d = 0 (00), length 1 (00000), step 0 (1). Then 0, 1, 0, 1.
        assert_eq!(out, [2, 0b0000_1100, 0b0000_0100, 0b0101_0000]);
        let mut input = &out[..];
        assert_eq!(Forest::take(&mut input, 4), Ok(forest));
        assert!(input.is_empty());
    }

    #[test]
    fn rows_without_parents_are_one_byte() {
        let mut out = Vec::new();
        Forest::new(&[None; 9]).write(&mut out);
        assert_eq!(out, [0]);
        assert_eq!(Forest::take(&mut &out[..], 9).unwrap().rows().collect::<Vec<_>>()[8], (8, None));
    }

    #[test]
    fn circles_and_deep_trees_are_refused() {
        assert_eq!(checked(&[Some(1), Some(0), None]), Err(DecodeError::NotTrees { rows: 3 }));
        assert_eq!(checked(&[Some(0)]), Err(DecodeError::NotTrees { rows: 1 }));
        let chain = |rows: u32| checked(&(0..rows).map(|row| row.checked_sub(1)).collect::<Vec<_>>());
        assert!(chain(65).is_ok());
        assert_eq!(chain(66), Err(DecodeError::NotTrees { rows: 66 }));
    }

    #[test]
    fn rows_are_borne_out_by_bytes() {
        assert_eq!(Forest::take(&mut &[2][..], 9), Err(DecodeError::UnexpectedEof { needed: 2, found: 1 }));
        assert!(Forest::take(&mut &[][..], 0).is_err());
    }

    #[test]
    fn parents_of_one_word_are_refused() {
        // One of three is used: g = 0 (0000), gap 0 (1). Without parents, that would be another way to say nothing.
        let mut input = &[1, 0b0000_1000][..];
        assert_eq!(Forest::take(&mut input, 2), Err(DecodeError::NotTrees { rows: 2 }));
    }
}
