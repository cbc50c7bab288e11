//! Mix: the archive codec. Each cell's symbol is coded bit by bit, at a probability mixed from many contexts.
//!
//! Nothing but what was coded before says what a bit is likely to be: the cells around, the density and the magnitudes of
//! the row, the column, the input channel and the kernel position so far, and the coded rows and columns most similar to
//! the current ones. It takes a microsecond a cell, both ways, and has no random access within a block; so it is for files, and a matrix to
//! multiply by is transcoded first ([`CompressedMatrix::into_serving`](super::CompressedMatrix::into_serving)). All
//! arithmetic is in integers.
//!
//! # Format
//! The shared part is a varint, the *period*. 0: the *lines* of a block are the columns of the matrix. Else they are its
//! rows, and the period, which divides the columns, is the number of columns of an input channel.
//!
//! A block has at most 2^23 cells. It is a varint, twice the length of the rest, plus 1 if the rest is a block of the index
//! map ([`super::index_map`]). Otherwise the rest is a *code* of the cells, line by line ([`model`]): at least a byte for 2^11
//! cells, filled up with zero bytes, and no other zero byte at its end. Any such bytes are a code; [`coder`] reads zeros
//! behind them.
//!
//! # Source
//! Mahoney's PAQ programs and Knoll's cmix, for the architecture; what is predicted from what is our own.

mod coder;
mod contexts;
mod counter;
mod lines;
mod logistic;
mod mixer;
mod model;
mod predictor;
mod priors;
mod references;
mod refiner;

use std::ops::Range;

use super::index_map::IndexMap;
use super::ints::{push_varint, take_varint};
use super::{Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words, symbols};
use crate::progress::{Progress, Silent};
use crate::tensor::{Codebook, Matrix};
use coder::{Reader, Writer};
use lines::Lines;
use model::{Alphabet, Model};

/// Most cells of a block.
const MOST_CELLS: usize = 1 << 23;

/// Cells of the blocks that an encoder makes.
const CELLS_PER_BLOCK: usize = 1 << 22;

/// Most cells for a byte of a block: what a reader does is in proportion to what it is given.
const CELLS_PER_BYTE: usize = 1 << 11;

const MOST_VARINT_BYTES: usize = 9;

/// See the module.
#[derive(Debug)]
pub(super) struct Mix {
    lines: Lines,
    index_map: IndexMap,
}

/// What all blocks share when they are written.
pub(super) struct Plan {
    lines: Lines,
    index_map: <IndexMap as Codec>::Plan,
}

impl Codec for Mix {
    type Plan = Plan;

    fn plan(matrix: &Matrix, head: &Head) -> Result<Plan, EncodeError> {
        let (codebook, indices) = symbols(matrix).ok_or(EncodeError::NeedsCodebook { codec: CodecId::Mix })?;
        if block_cells(head) > MOST_CELLS {
            return Err(EncodeError::BlockTooLarge { codec: CodecId::Mix, cells: block_cells(head), most: MOST_CELLS });
        }
        let block_rows = head.rows_per_block.min(head.rows);
        let lines = Lines::of(block_rows, head.cols, indices, |symbol| Some(symbol) != codebook.zero());
        Ok(Plan { lines, index_map: IndexMap::plan(matrix, head)? })
    }

    fn write_shared(plan: &Plan, _head: &Head, out: &mut Vec<u8>) {
        push_varint(out, plan.lines.period() as u64);
    }

    fn write_block(plan: &Plan, matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8> {
        Self::write_block_reporting(plan, matrix, head, rows, &Silent).expect("nobody cancels")
    }

    fn write_block_reporting(
        plan: &Plan,
        matrix: &Matrix,
        head: &Head,
        rows: Range<usize>,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, EncodeError> {
        let (codebook, indices) = symbols(matrix).expect("plan() refused raw values");
        let alphabet = alphabet(codebook);
        let lines = plan.lines;
        let grid = lines.grid(rows.len(), head.cols);
        let mut model = Model::new(grid, alphabet);
        let mut writer = Writer::new();
        for line in 0..grid.lines {
            progress.check()?;
            model.code_line(&mut writer, line, |place, _| {
                let (row, col) = lines.cell(line, place);
                alphabet.level(indices[(rows.start + row) * head.cols + col])
            });
            progress.report((line + 1) as f64 / grid.lines as f64, "encode", "mix");
        }
        let mut code = writer.finish();
        let least = least_bytes(grid.lines * grid.places);
        code.resize(code.len().max(least), 0);
        let index_map = IndexMap::write_block(&plan.index_map, matrix, head, rows);
        let is_mapped = index_map.len() < code.len();
        let rest = if is_mapped { index_map } else { code };
        let mut block = Vec::with_capacity(rest.len() + MOST_VARINT_BYTES);
        push_varint(&mut block, (rest.len() as u64) << 1 | u64::from(is_mapped));
        block.extend_from_slice(&rest);
        Ok(block)
    }

    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
        if !matches!(head.words, Words::Symbols(_)) {
            return Err(DecodeError::NeedsCodebook { codec: CodecId::Mix });
        }
        let period = take_varint(input)? as usize;
        let lines = Lines::from_period(period, head.cols).ok_or(DecodeError::Period { period, cols: head.cols })?;
        Ok(Self { lines, index_map: IndexMap::read_shared(head, input)? })
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let code = match Rest::of(block, rows.len() * head.cols)? {
            Rest::IndexMap(block) => return self.index_map.visit_block(head, block, rows, visitor),
            Rest::Code(code) => code,
        };
        let Words::Symbols(codebook) = &head.words else {
            return Err(DecodeError::NeedsCodebook { codec: CodecId::Mix });
        };
        let alphabet = alphabet(codebook);
        let grid = self.lines.grid(rows.len(), head.cols);
        let mut model = Model::new(grid, alphabet);
        let mut reader = Reader::new(code);
        for line in 0..grid.lines {
            model.code_line(&mut reader, line, |place, level| {
                if let Some(level) = level.filter(|&level| level != 0) {
                    let (row, col) = self.lines.cell(line, place);
                    visitor.cell(rows.start + row, col, alphabet.symbol(level));
                }
                0
            });
        }
        Ok(())
    }

    /// Any bytes of the right length are a block, so it is not walked. How many cells a walk visits is not known before.
    fn check_block(&self, head: &Head, block: &[u8], rows: Range<usize>) -> Result<usize, DecodeError> {
        let cells = rows.len() * head.cols;
        match Rest::of(block, cells)? {
            Rest::IndexMap(block) => self.index_map.check_block(head, block, rows),
            Rest::Code(_) => Ok(cells),
        }
    }
}

/// The rows of a block that an encoder makes.
pub(super) fn rows_per_block(rows: usize, cols: usize) -> usize {
    let blocks = rows.saturating_mul(cols).div_ceil(CELLS_PER_BLOCK).max(1);
    rows.div_ceil(blocks).max(1)
}

fn block_cells(head: &Head) -> usize {
    head.rows_per_block.min(head.rows).saturating_mul(head.cols)
}

fn least_bytes(cells: usize) -> usize {
    cells.div_ceil(CELLS_PER_BYTE)
}

/// What a block holds.
enum Rest<'a> {
    IndexMap(&'a [u8]),
    Code(&'a [u8]),
}

impl<'a> Rest<'a> {
    /// Of a block of `cells` cells, its length checked.
    fn of(mut block: &'a [u8], cells: usize) -> Result<Self, DecodeError> {
        if cells > MOST_CELLS {
            return Err(DecodeError::BlockTooLarge { cells, most: MOST_CELLS });
        }
        let start = take_varint(&mut block)?;
        let (needed, found) = ((start >> 1) as usize, block.len());
        let least = least_bytes(cells);
        match start & 1 {
            _ if found > needed => Err(DecodeError::TrailingBytes { found: found - needed }),
            _ if found < needed => Err(DecodeError::UnexpectedEof { needed, found }),
            1 => Ok(Self::IndexMap(block)),
            _ if found < least => Err(DecodeError::UnexpectedEof { needed: least, found }),
            _ if found > least && block.last() == Some(&0) => Err(DecodeError::TrailingBytes { found: 1 }),
            _ => Ok(Self::Code(block)),
        }
    }
}

/// Levels count from +0.0, or, where the codebook does not hold it, from between the negative and the positive values.
fn alphabet(codebook: &Codebook) -> Alphabet {
    let values = codebook.values();
    let below = match codebook.zero() {
        Some(zero) => usize::from(zero),
        None => values.partition_point(|value| value.is_sign_negative()),
    };
    let has_zero = codebook.zero().is_some();
    Alphabet { has_zero, below: below as u32, above: (values.len() - below - usize::from(has_zero)) as u32 }
}
