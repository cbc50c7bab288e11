//! Delta: a row as another row of its block and the cells in which it differs. Rows that resemble each other are common in
//! trained layers, and the differences along a tree of them far fewer than the cells that are not zero.
//!
//! # Format
//! The cells of a block are told as *changes*: a matrix of its rows and columns with words of their own, in which 0 is an
//! unchanged cell and `s + 1` a cell that now holds symbol `s`. A row changes its *parent*, or, where it has none, a row of
//! zeros (of symbol 0 where the codebook has no zero). The rows of the changes stand in the order of [`forest`].
//!
//! The shared part is that of rANS ([`super::rans`]), for the changes: words below `k + 1`, of which 0 is the zero word. No rows are
//! copies. At most 65,535 levels.
//!
//! | block section | length |
//! |---|---|
//! | parents ([`forest`]) | |
//! | changes: a block of rANS | the rest |
//!
//! A block has at most 65,535 rows and 2^23 cells.
//!
//! # Source
//! The tree is that of [`crate::kernel::tree`].

mod forest;
mod replay;
mod sums;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rayon::prelude::*;

use super::rans::{self, Rans};
use super::visitors::Inputs;
use super::{Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words, symbols};
use crate::kernel::tree::{DeltaTree, Rows};
use crate::tensor::{Codebook, FloatType, MAX_LEVELS, Matrix};
use forest::Forest;
use replay::{Cells, replay};
use sums::Sums;

/// Most rows of a block: a row and "no parent" are one alphabet of 16 bits.
const MOST_ROWS: usize = (1 << 16) - 1;

/// Most cells of a block: what a reader holds is in proportion to them.
const MOST_CELLS: usize = 1 << 23;

/// Cells of the blocks that an encoder makes.
const CELLS_PER_BLOCK: usize = 1 << 22;

/// Most values of a codebook: the words of changes are one more.
const MOST_LEVELS: usize = MAX_LEVELS - 1;

/// Most rows above a row in what an encoder makes: products add up the rounding errors of as many sums.
const DEPTH: u32 = 32;

/// Rows of fewer cells take hardly more bits than the number of a parent: no tree is looked for.
const LEAST_COLS: usize = 16;

/// Symbols that the search for a tree tells apart.
const TREE_LEVELS: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Delta {
    changes: Rans,
    /// Shape and words of the changes.
    head: Head,
}

/// What all blocks share when they are written.
pub(super) struct Plan {
    /// Of each block.
    forests: Vec<Forest>,
    changes: Matrix,
    rans: rans::Plan,
}

impl Codec for Delta {
    type Plan = Plan;

    fn plan(matrix: &Matrix, head: &Head) -> Result<Plan, EncodeError> {
        let (codebook, indices) = symbols(matrix).ok_or(EncodeError::NeedsCodebook { codec: CodecId::Delta })?;
        let (levels, block_rows) = (codebook.len(), head.rows_per_block.min(head.rows));
        let cells = block_rows.saturating_mul(head.cols);
        if levels > MOST_LEVELS {
            return Err(EncodeError::TooManyLevels { codec: CodecId::Delta, levels, most: MOST_LEVELS });
        }
        if cells > MOST_CELLS {
            return Err(EncodeError::BlockTooLarge { codec: CodecId::Delta, cells, most: MOST_CELLS });
        }
        if block_rows > MOST_ROWS {
            return Err(EncodeError::TooManyRows { codec: CodecId::Delta, rows: block_rows, most: MOST_ROWS });
        }
        let base = base(codebook);
        let mut changes = vec![0; indices.len()];
        let of_block = |(changes, symbols): (&mut [u16], &[u16])| {
            let forest = Forest::new(&parents(symbols, head.cols, levels, base));
            write_changes(symbols, head.cols, base, &forest, changes);
            forest
        };
        let blocks = changes.par_chunks_mut(cells.max(1)).zip(indices.par_chunks(cells.max(1)));
        let forests = blocks.map(of_block).collect();
        let changes = Matrix::shared(head.rows, head.cols, words(levels), changes);
        let changes = changes.expect("words of changes are below levels + 1");
        let rans = rans::Plan::without_copies(&changes, &head_of_changes(head, levels))?;
        Ok(Plan { forests, changes, rans })
    }

    fn write_shared(plan: &Plan, _head: &Head, out: &mut Vec<u8>) {
        plan.rans.write_shared(out);
    }

    fn write_block(plan: &Plan, _matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        let mut out = Vec::new();
        plan.forests[rows.start / head.rows_per_block].write(&mut out);
        out.extend(plan.rans.write_block(&plan.changes, rows));
        out
    }

    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let Words::Symbols(codebook) = &head.words else {
            return Err(DecodeError::NeedsCodebook { codec: CodecId::Delta });
        };
        let levels = codebook.len();
        if levels > MOST_LEVELS {
            return Err(DecodeError::TooManyLevels { levels, most: MOST_LEVELS });
        }
        let head = head_of_changes(head, levels);
        let changes = Rans::read_without_copies(&head, input)?;
        Ok(Self { changes, head })
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        mut block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let forest = self.forest(&mut block, rows.len())?;
        let (first, zero) = (rows.start, head.zero_word());
        let cells = Cells { first, zero, visitor };
        replay(self, &forest, block, rows, base_of(head), cells)
    }

    /// Which cells hold zero is not known before a walk along the tree: what products visit is the changes.
    fn check_block(&self, _head: &Head, mut block: &[u8], rows: Range<usize>) -> Result<usize, DecodeError> {
        self.forest(&mut block, rows.len())?;
        self.changes.check_block(&self.head, block, rows)
    }

    fn multiply_block(
        &self,
        head: &Head,
        (mut block, rows): (&[u8], Range<usize>),
        wanted: Range<usize>,
        inputs: Inputs,
        out: &mut [f32],
    ) -> bool {
        // A difference between rows of two groups says nothing of their products.
        let group = |row: usize| row / inputs.rows_per_group;
        if group(rows.start) != group(rows.end - 1) {
            return false;
        }
        let checked = "the block was checked when the payload was opened";
        let forest = self.forest(&mut block, rows.len()).expect(checked);
        let mut sums = Sums::new(inputs, rows.clone(), head.levels(), base_of(head));
        replay(self, &forest, block, rows.clone(), base_of(head), &mut sums).expect(checked);
        sums.write(wanted.start - rows.start..wanted.end - rows.start, out);
        true
    }

    fn resident_bytes(&self) -> usize {
        size_of::<Self>() + self.changes.resident_bytes() + self.head.levels() * size_of::<f64>()
    }
}

impl Delta {
    /// Takes the parents of a block from the front of `block`.
    fn forest(&self, block: &mut &[u8], rows: usize) -> Result<Forest, DecodeError> {
        let cells = rows.saturating_mul(self.head.cols);
        if cells > MOST_CELLS {
            return Err(DecodeError::BlockTooLarge { cells, most: MOST_CELLS });
        }
        if rows > MOST_ROWS {
            return Err(DecodeError::TooManyRows { rows, most: MOST_ROWS });
        }
        Forest::take(block, rows)
    }
}

/// The rows of a block that an encoder makes.
pub(super) fn rows_per_block(rows: usize, cols: usize) -> usize {
    let blocks = rows.saturating_mul(cols).div_ceil(CELLS_PER_BLOCK).max(rows.div_ceil(MOST_ROWS)).max(1);
    rows.div_ceil(blocks).max(1)
}

/// The symbol that fills the row which rows without a parent change.
fn base(codebook: &Codebook) -> u16 {
    codebook.zero().unwrap_or_default()
}

fn base_of(head: &Head) -> u16 {
    head.zero_word().unwrap_or_default() as u16
}

/// The words of changes as a codebook, whose zero is an unchanged cell. All matrices of so many levels share it.
fn words(levels: usize) -> Arc<Codebook> {
    static SHARED: Mutex<BTreeMap<usize, Weak<Codebook>>> = Mutex::new(BTreeMap::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(words) = shared.get(&levels).and_then(Weak::upgrade) {
        return words;
    }
    let values = (0..=levels).map(|word| word as f64).collect();
    let words = Arc::new(Codebook::new(FloatType::F32, values).expect("small integers rise and are finite"));
    shared.retain(|_, words| words.strong_count() > 0);
    shared.insert(levels, Arc::downgrade(&words));
    words
}

fn head_of_changes(head: &Head, levels: usize) -> Head {
    Head { words: Words::Symbols(words(levels)), ..*head }
}

/// The parents along the tree of the rows of a block; of none where a tree would save little.
fn parents(symbols: &[u16], cols: usize, levels: usize, base: u16) -> Vec<Option<u32>> {
    let count = symbols.len().checked_div(cols).unwrap_or_default();
    // Swaps base and 0, pair by pair. Of many levels, some look the same to the search.
    let told_apart = |symbol: u16| match symbol ^ base {
        swapped if levels <= TREE_LEVELS || swapped == 0 => swapped as u8,
        swapped => 1 + (swapped % 255) as u8,
    };
    let read = |row: usize, cells: &mut [u8]| {
        cells.iter_mut().zip(&symbols[row * cols..]).for_each(|(cell, &symbol)| *cell = told_apart(symbol));
    };
    if cols < LEAST_COLS {
        return vec![None; count];
    }
    let rows = Rows { count, cols, read: &read, levels: levels.min(TREE_LEVELS) };
    DeltaTree::find(&rows, DEPTH).map_or_else(|| vec![None; count], |tree| tree.parents)
}

/// Writes the words of the changes of a block to `changes`, its rows in the order of `forest`.
fn write_changes(symbols: &[u16], cols: usize, base: u16, forest: &Forest, changes: &mut [u16]) {
    let row = |row: usize| &symbols[row * cols..][..cols];
    let unchanged = vec![base; cols];
    for ((number, parent), words) in forest.rows().zip(changes.chunks_exact_mut(cols)) {
        let cells = row(number).iter().zip(parent.map_or(&unchanged[..], row));
        words.iter_mut().zip(cells).for_each(|(word, (now, before))| *word = if now == before { 0 } else { now + 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{raw_3x3, shared_3x3};
    use super::super::{CompressedMatrix, encode};
    use super::*;

    fn opened(matrix: &Matrix) -> CompressedMatrix {
        let head = Head::of(matrix, matrix.rows()).unwrap();
        let payload = encode(matrix, CodecId::Delta, matrix.rows()).unwrap();
        CompressedMatrix::open(CodecId::Delta, head, payload.into()).unwrap()
    }

    #[test]
    fn raw_values_and_full_codebooks_are_refused() {
        let error = EncodeError::NeedsCodebook { codec: CodecId::Delta };
        assert_eq!(encode(&raw_3x3(), CodecId::Delta, 3), Err(error));
        let full = Codebook::new(FloatType::F32, (0..MAX_LEVELS).map(|v| v as f64).collect()).unwrap();
        let matrix = Matrix::shared(1, 1, full.into(), vec![7]).unwrap();
        let error = EncodeError::TooManyLevels { codec: CodecId::Delta, levels: MAX_LEVELS, most: MOST_LEVELS };
        assert_eq!(encode(&matrix, CodecId::Delta, 1), Err(error));
    }

    #[test]
    fn rows_without_a_tree_are_a_byte_and_a_block_of_rans() {
        let matrix = shared_3x3();
        let mut changes = [9; 9];
        write_changes(symbols(&matrix).unwrap().1, 3, 1, &Forest::new(&[None; 3]), &mut changes);
        assert_eq!(changes, [0, 1, 0, 0, 0, 0, 3, 0, 3]);
        let changes = Matrix::shared(3, 3, words(3), changes.to_vec()).unwrap();
        let rans = encode(&changes, CodecId::Rans, 3).unwrap();
        let opened =
            CompressedMatrix::open(CodecId::Rans, Head::of(&changes, 3).unwrap(), rans.clone().into()).unwrap();
        let (shared, block) = rans.split_at(opened.sizes().shared_bytes);
        let payload = encode(&matrix, CodecId::Delta, 3).unwrap();
        assert_eq!(payload, [shared, &[0], block].concat());
    }

    #[test]
    fn a_row_that_resembles_another_costs_its_differences() {
        let row = |changed: usize| (0..64).map(move |col| if col == changed { 2 } else { (col * 7 % 3) as u16 });
        let codebook = Codebook::new(FloatType::F32, vec![-1.0, 0.0, 1.0]).unwrap();
        let indices: Vec<u16> = [64, 3, 64, 5, 64, 9, 64, 64].into_iter().flat_map(row).collect();
        let matrix = Matrix::shared(8, 64, codebook.into(), indices).unwrap();
        let compressed = opened(&matrix);
        assert_eq!(compressed.decode(), matrix);
        // The cells of one row that are not zero, and one for each of those that differ from it and do not hold 2 anyway.
        assert!((43..=46).contains(&compressed.stored_cells()), "{}", compressed.stored_cells());
        let x: Vec<f32> = (0..64).map(|i| i as f32 / 8.0).collect();
        let mut out = [0.0; 8];
        compressed.multiply(&x, 1, &mut out);
        for (row, out) in out.into_iter().enumerate() {
            let sum: f64 = (0..64).map(|col| matrix.value(row * 64 + col) * f64::from(x[col])).sum();
            assert_eq!(f64::from(out), sum, "row {row}");
        }
    }
}
