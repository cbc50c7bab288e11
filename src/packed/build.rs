//! From an encoded or a plain matrix to a packed one, a block of rows at a time.

use std::ops::Range;

use rayon::prelude::*;

use super::copies::Copies;
use super::tree::Differences;
use super::{Held, PackedMatrix, Reuse};
use crate::codec::{CompressedMatrix, Words};
use crate::kernel::levels::{LevelRows, Width};
use crate::kernel::sparse::{SparseRows, Values as Table};
use crate::tensor::{Codebook, Matrix, Values};

/// Cells of a block of rows of a plain matrix.
const CELLS_PER_BLOCK: usize = 1 << 17;

/// Why a matrix cannot be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Only symbols of a codebook can be packed.
    #[error("the matrix holds raw values, and only symbols of a codebook can be packed")]
    RawValues,
    /// A symbol is to fit in a byte.
    #[error("the codebook has {levels} values, and at most 256 can be packed")]
    TooManyLevels { levels: usize },
}

impl PackedMatrix {
    /// Packs an encoded matrix. Decodes every block twice, in parallel on the current rayon pool, 3 bytes a cell for each
    /// block in work; never holds the whole matrix but in its packed form, and for a moment that twice.
    ///
    /// # Errors
    /// [`PackError`].
    pub fn from_compressed(matrix: &CompressedMatrix, reuse: Reuse) -> Result<Self, PackError> {
        let head = matrix.head();
        let Words::Symbols(codebook) = &head.words else { return Err(PackError::RawValues) };
        let source = Source {
            rows: head.rows,
            cols: head.cols,
            blocks: (0..head.blocks()).map(|block| head.block_rows(block)).collect(),
            read: &|rows| {
                let mut symbols = vec![0; rows.len() * head.cols];
                matrix.decode_symbols(rows, &mut symbols);
                symbols.into_iter().map(|symbol| symbol as u8).collect()
            },
        };
        source.pack(codebook, reuse)
    }

    /// Packs a plain matrix, in parallel on the current rayon pool.
    ///
    /// # Errors
    /// [`PackError`].
    pub fn from_matrix(matrix: &Matrix, reuse: Reuse) -> Result<Self, PackError> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let Values::Shared { codebook, indices } = matrix.values() else { return Err(PackError::RawValues) };
        let step = (CELLS_PER_BLOCK / cols.max(1)).max(1);
        let source = Source {
            rows,
            cols,
            blocks: (0..rows).step_by(step).map(|start| start..rows.min(start + step)).collect(),
            read: &|rows| indices[rows.start * cols..rows.end * cols].iter().map(|&symbol| symbol as u8).collect(),
        };
        source.pack(codebook, reuse)
    }
}

/// Where the symbols of a matrix come from.
struct Source<'a> {
    rows: usize,
    cols: usize,
    blocks: Vec<Range<usize>>,
    /// The symbols of some rows, row-major.
    read: &'a (dyn Fn(Range<usize>) -> Vec<u8> + Sync),
}

impl Source<'_> {
    fn pack(&self, codebook: &Codebook, reuse: Reuse) -> Result<PackedMatrix, PackError> {
        let levels = codebook.len();
        if levels > 256 {
            return Err(PackError::TooManyLevels { levels });
        }
        let zero = codebook.zero().map(|symbol| symbol as u8);
        let held = if self.is_smaller_sparse(levels, zero) {
            Held::Sparse(self.sparse(table(codebook), zero))
        } else {
            Held::Levels { rows: self.rows, levels: self.levels(table(codebook), levels) }
        };
        let packed = PackedMatrix { rows: self.rows, cols: self.cols, held, places: None, tree: None };
        Ok(match reuse {
            Reuse::Nothing => packed,
            Reuse::Copies => packed.without_copies(),
            Reuse::Differences => packed.without_copies().with_differences(levels),
        })
    }

    /// Calls `work` for each row of a block, after `start`, and returns what it made of each block.
    fn for_each_row<T: Send>(&self, start: impl Fn() -> T + Sync, work: impl Fn(&mut T, &[u8]) + Sync) -> Vec<T> {
        let block = |rows: &Range<usize>| {
            let mut made = start();
            if self.cols == 0 {
                rows.clone().for_each(|_| work(&mut made, &[]));
            } else {
                (self.read)(rows.clone()).chunks_exact(self.cols).for_each(|row| work(&mut made, row));
            }
            made
        };
        self.blocks.par_iter().map(block).collect()
    }

    /// Whether entries, fillers and row ends take fewer bytes than a symbol for every cell.
    fn is_smaller_sparse(&self, levels: usize, zero: Option<u8>) -> bool {
        let entries: usize = self.for_each_row(|| 0, |entries, row| *entries += entries_of(row, zero)).iter().sum();
        2 * entries + 4 * self.rows < self.rows * Width::of(levels).row_bytes(self.cols)
    }

    fn sparse(&self, values: Box<Table>, zero: Option<u8>) -> SparseRows {
        let empty = || SparseRows::new(self.cols, values.clone(), zero);
        let blocks = self.for_each_row(empty, |rows, row| rows.push_row(row, zero));
        let mut all = empty();
        // Each block is freed once it is copied.
        blocks.into_iter().for_each(|block| all.append(&block, 0..block.rows()));
        all.shrink();
        all
    }

    fn levels(&self, values: Box<Table>, levels: usize) -> LevelRows {
        let empty = || LevelRows::new(self.cols, values.clone(), levels);
        let blocks = self.for_each_row(empty, |rows, row| rows.push_row(row));
        let mut all = empty();
        for (block, rows) in blocks.into_iter().zip(&self.blocks) {
            all.append(&block, 0..rows.len());
        }
        all.shrink();
        all
    }
}

/// Entries and fillers of a row.
fn entries_of(row: &[u8], zero: Option<u8>) -> usize {
    let (mut entries, mut next) = (0, 0);
    for (col, _) in row.iter().enumerate().filter(|&(_, &symbol)| Some(symbol) != zero) {
        entries += 1 + (col - next) / 256;
        next = col + 1;
    }
    entries
}

/// The values of a codebook, rounded to f32; zeros after them.
fn table(codebook: &Codebook) -> Box<Table> {
    let mut table = Box::new([0.0; 256]);
    table.iter_mut().zip(codebook.values()).for_each(|(to, &value)| *to = value as f32);
    table
}

impl PackedMatrix {
    /// Keeps each distinct row once, where enough of them are copies.
    fn without_copies(mut self) -> Self {
        let count = self.held.rows();
        let copies = match &self.held {
            Held::Sparse(rows) => Copies::find((0..count).map(|row| rows.entries(row))),
            Held::Levels { levels, .. } => Copies::find((0..count).map(|row| levels.row(row))),
        };
        let Some(Copies { firsts, places }) = copies else { return self };
        self.places = Some(places);
        self.held = match self.held {
            Held::Sparse(rows) => {
                let mut kept = rows.empty();
                kept.append(&rows, firsts);
                kept.shrink();
                Held::Sparse(kept)
            }
            Held::Levels { levels, .. } => {
                let mut kept = levels.empty();
                let rows = firsts.len();
                kept.append(&levels, firsts);
                kept.shrink();
                Held::Levels { rows, levels: kept }
            }
        };
        self
    }

    /// Holds sparse rows as differences, where that pays.
    fn with_differences(mut self, levels: usize) -> Self {
        let Held::Sparse(rows) = &self.held else { return self };
        let Some(Differences { rows, tree, places }) = Differences::find(rows, levels) else { return self };
        self.places = Some(match self.places {
            Some(copies) => copies.into_iter().map(|place| places[place as usize]).collect(),
            None => places,
        });
        self.held = Held::Sparse(rows);
        self.tree = Some(tree);
        self
    }
}
