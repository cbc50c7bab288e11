//! Lossless representations of a weight matrix, and products that run on them without expanding it.
//!
//! A codec says how the rows of one *block* are written and how they are walked again. Everything else is built on the
//! walk, once for all codecs: decoding, validation and products ([`CompressedMatrix`]). Blocks are independently
//! decodable, so all three run in parallel. `docs/adding-a-codec.md` adds one step by step; `docs/format.md` is
//! normative for the bytes.
//!
//! # Format
//! A payload is `shared part | block table | blocks`. Integers are little-endian; a *varint* is unsigned LEB128 in its
//! shortest form; bit strings fill each byte from its most significant bit and end in zero bits up to a whole byte.
//!
//! - **Head** (kept by the container): rows, cols, rows per block, and what a word is.
//! - **Word**: a symbol of the codebook (`k` values), 1 byte wide for `k` <= 256, else 2; or, without a codebook, the bits
//!   of a value, as wide as its type.
//! - **Zero word**: the symbol of +0.0, if the codebook holds it; 0 without a codebook. Sparse codecs leave out the cells
//!   that hold it; -0.0 is a value like any other.
//! - **Index width** of `n`: the smallest of 1, 2 and 4 bytes that holds the number `n`.
//! - **Blocks**: `B = ceil(rows / rows per block)`, each of `rows per block` consecutive rows, the last of the rest.
//! - **Block table**: `B - 1` varints, the byte lengths of all blocks but the last, which takes the rest of the payload.
//! - A matrix without cells (rows = 0 or cols = 0) has no blocks and no table: its payload is the shared part.
//!
//! The shared part and the blocks of each codec are given in its file; sections follow each other without padding.

mod any;
mod bits;
mod compressed;
mod csc;
mod cser;
mod csr;
mod decoded_rows;
mod delta;
mod dense;
mod encode;
mod error;
mod ham;
mod head;
mod huffman;
mod index_map;
mod ints;
mod listed_rows;
mod mix;
pub(crate) mod numbers;
mod pattern;
mod pco;
mod rans;
mod sham;

#[cfg(test)]
mod testing;
mod visitors;

use std::ops::Range;

use crate::progress::Progress;
use crate::tensor::Matrix;
use encode::{symbol_counts, symbols};
use head::Cells;
use visitors::{Count, Inputs};

pub use any::CodecId;
pub use compressed::{CompressedMatrix, PayloadSizes};
pub(crate) use decoded_rows::DecodedRows;
pub use encode::{
    Smallest, encode, encode_cancellable, encode_smallest, rows_per_block, rows_per_block_for, rows_per_block_of,
};
pub use error::{DecodeError, EncodeError};
pub use head::{Head, MAX_CELLS, Words};
pub(crate) use numbers::CHUNK_NUMBERS;

/// One lossless representation: how the rows of a block are written, and how they are walked.
///
/// A value of the type is what all blocks of one encoded matrix share when they are read, such as a decoding table.
trait Codec: Sized + Send + Sync {
    /// What all blocks share when they are written, such as a Huffman code.
    type Plan: Sync;

    /// Gathers from `matrix`, whose blocks `head` tells, what they will share.
    ///
    /// # Errors
    /// [`EncodeError::NeedsCodebook`] where the codec cannot represent raw values, [`EncodeError::NeedsRawValues`] where it
    /// represents no others.
    fn plan(matrix: &Matrix, head: &Head) -> Result<Self::Plan, EncodeError>;

    /// Appends the shared part to `out`.
    fn write_shared(_plan: &Self::Plan, _head: &Head, _out: &mut Vec<u8>) {}

    /// Encodes `rows` of `matrix`, which are those of one block.
    fn write_block(plan: &Self::Plan, matrix: &Matrix, head: &Head, rows: Range<usize>) -> Vec<u8>;

    /// The same, for codecs that take so long that they ask `progress` within a block whether to go on, and tell it how much
    /// of the block is done.
    ///
    /// # Errors
    /// [`EncodeError::Cancelled`].
    fn write_block_reporting(
        plan: &Self::Plan,
        matrix: &Matrix,
        head: &Head,
        rows: Range<usize>,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, EncodeError> {
        progress.check()?;
        Ok(Self::write_block(plan, matrix, head, rows))
    }

    /// A number of bytes that no payload stays below when `stored` cells of the matrix are not zero. To override where it
    /// can tell that encoding is not worth the try.
    fn least_bytes(_head: &Head, _stored: usize) -> usize {
        0
    }

    /// Takes the shared part from the front of `input`.
    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError>;

    /// Walks `block`, which holds `rows`: passes every stored cell to `visitor`, rows in any order, each word and
    /// column checked before it is passed on, and the whole block consumed at the end.
    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError>;

    /// Checks `block` when the matrix is opened; afterwards [`Codec::visit_block`] cannot fail on it. Returns how many
    /// cells a walk visits. To override where a walk does not see every fault, or takes longer than the bytes warrant.
    fn check_block(&self, head: &Head, block: &[u8], rows: Range<usize>) -> Result<usize, DecodeError> {
        let mut stored = Count(0);
        self.visit_block(head, block, rows, &mut stored)?;
        Ok(stored.0)
    }

    /// `out = rows . x` for `wanted` of the rows of a block, which was checked. To override where there is a faster way than
    /// a walk; returns whether it was taken.
    fn multiply_block(
        &self,
        _head: &Head,
        _block: (&[u8], Range<usize>),
        _wanted: Range<usize>,
        _inputs: Inputs,
        _out: &mut [f32],
    ) -> bool {
        false
    }

    /// Bytes that this holds in memory, blocks apart.
    fn resident_bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// Receives the cells of a block as a codec walks it.
trait Visitor {
    /// Cell (`row`, `col`) of the matrix holds `word`: a symbol, or the bits of a value. Cells that are never visited
    /// hold +0.0.
    fn cell(&mut self, row: usize, col: usize, word: u64);

    /// The cells of `row` from `col` on hold `symbols`, of which `zero` may be passed over.
    #[inline]
    fn run(&mut self, row: usize, col: usize, symbols: &[u8], zero: Option<u64>) {
        for (col, &symbol) in (col..).zip(symbols) {
            if Some(u64::from(symbol)) != zero {
                self.cell(row, col, u64::from(symbol));
            }
        }
    }
}
