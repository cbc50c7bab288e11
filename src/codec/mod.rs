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
//! - A matrix without cells (rows = 0 or cols = 0) has an empty payload.
//!
//! The shared part and the blocks of each codec are given in its file; sections follow each other without padding.

mod cser;
mod csc;
mod csr;
mod dense;
mod ham;
mod huffman;
mod index_map;
mod sham;

mod compressed;

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tensor::{Codebook, FloatType, Matrix};

pub use compressed::CompressedMatrix;

/// The codecs; the discriminant is the number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CodecId {
    /// Every value in full.
    Dense = 0,
    /// Compressed sparse row.
    Csr = 1,
    /// Compressed sparse column.
    Csc = 2,
    /// `ceil(log2 k)` bits a weight and a codebook.
    IndexMap = 3,
    /// Huffman address map: one Huffman code over all values, zero included.
    Ham = 4,
    /// Sparse Huffman address map: Huffman-coded non-zeros and raw column indices.
    Sham = 5,
    /// Compressed shared elements row: column indices grouped by value.
    Cser = 6,
}

/// What every block of an encoded matrix needs to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Output units.
    pub rows: usize,
    /// Inputs of one output unit.
    pub cols: usize,
    /// Rows in every block but the last; at least 1.
    pub rows_per_block: usize,
    /// What a word of the stream stands for.
    pub words: Words,
}

/// What a word of a stream stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Words {
    /// A symbol of this codebook.
    Symbols(Arc<Codebook>),
    /// The bits of a value of this type.
    Values(FloatType),
}

/// Receives the cells of a block as a codec walks it.
pub trait Visitor {
    /// Cell (`row`, `col`) of the matrix holds `word`: a symbol, or the bits of a value as in [`FloatType::to_bits`].
    /// Cells that are never visited hold +0.0.
    fn cell(&mut self, row: usize, col: usize, word: u64);
}

/// One lossless representation, bound to one matrix: it holds what all of its blocks share, such as a dictionary.
pub trait Codec: Sized + Send + Sync {
    /// Gathers from `matrix` what its blocks will share.
    fn plan(matrix: &Matrix) -> Result<Self, EncodeError>;

    /// Appends the shared part to `out`.
    fn write_shared(&self, out: &mut Vec<u8>);

    /// Reads the shared part from the front of `input` and advances it.
    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError>;

    /// Encodes `rows` of `matrix` as one block.
    fn encode_block(&self, matrix: &Matrix, rows: Range<usize>) -> Vec<u8>;

    /// Walks `block`, which holds `rows`, and checks every symbol and column before it passes them on.
    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError>;
}

/// Encodes `matrix` with `codec`. Deterministic whatever the number of threads. Returns the payload: shared part,
/// block table, blocks.
pub fn encode(matrix: &Matrix, codec: CodecId, rows_per_block: usize) -> Result<Vec<u8>, EncodeError> {
    todo!()
}

/// The rows per block that [`encode`] callers should use: blocks large enough that their offsets do not show, small
/// enough to decode in parallel.
pub fn rows_per_block(rows: usize, cols: usize) -> usize {
    todo!()
}

/// Encodes `matrix` with each of `codecs` that can represent it and keeps the smallest payload.
pub fn encode_smallest(matrix: &Matrix, codecs: &[CodecId], rows_per_block: usize) -> Result<(CodecId, Vec<u8>), EncodeError> {
    todo!()
}

/// Why a matrix cannot be encoded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec stores symbols, and the matrix holds raw values.
    #[error("codec {codec:?} needs a codebook, and the matrix holds raw values")]
    NeedsCodebook { codec: CodecId },
}

/// Why bytes are not an encoded matrix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The payload ended early.
    #[error("need {needed} bytes, found {found}")]
    UnexpectedEof { needed: usize, found: usize },
    /// A code points past the codebook.
    #[error("symbol {symbol} is outside a codebook of {levels} values")]
    SymbolOutOfRange { symbol: u64, levels: usize },
}
