//! What is known of a matrix besides its payload, and how its cells become words.

use std::ops::Range;
use std::sync::Arc;

use super::{DecodeError, EncodeError};
use crate::tensor::{Codebook, FloatData, FloatType, Matrix, Values};

/// Most cells of an encoded matrix, 8 GiB as f32. Some payloads spend no bits on a cell, so their length bounds neither
/// the time to walk them nor the memory to expand them: this does.
pub const MAX_CELLS: usize = 1 << 31;

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

impl Head {
    /// The head of `matrix` cut in blocks of `rows_per_block` rows.
    ///
    /// # Errors
    /// [`EncodeError::TooManyCells`].
    pub fn of(matrix: &Matrix, rows_per_block: usize) -> Result<Self, EncodeError> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        if !fits(rows, cols) {
            return Err(EncodeError::TooManyCells { rows, cols });
        }
        let words = match matrix.values() {
            Values::Shared { codebook, .. } => Words::Symbols(codebook.clone()),
            Values::Raw { dtype, .. } => Words::Values(*dtype),
        };
        Ok(Self { rows, cols, rows_per_block: rows_per_block.max(1), words })
    }

    /// Checks the numbers that an untrusted container gave.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        if !fits(self.rows, self.cols) {
            return Err(DecodeError::TooManyCells { rows: self.rows, cols: self.cols });
        }
        if self.rows_per_block == 0 { Err(DecodeError::EmptyBlocks) } else { Ok(()) }
    }

    /// Number of cells.
    pub fn cells(&self) -> usize {
        self.rows * self.cols
    }

    /// Number of blocks; 0 for a matrix without cells.
    pub fn blocks(&self) -> usize {
        if self.cells() == 0 { 0 } else { self.rows.div_ceil(self.rows_per_block) }
    }

    /// The rows of block `block`.
    pub fn block_rows(&self, block: usize) -> Range<usize> {
        let start = block * self.rows_per_block;
        start..self.rows.min(start.saturating_add(self.rows_per_block))
    }

    /// Bytes of a word where words are stored whole.
    pub fn word_bytes(&self) -> usize {
        match &self.words {
            Words::Symbols(codebook) if codebook.len() <= 1 << 8 => 1,
            Words::Symbols(_) => 2,
            Words::Values(dtype) => dtype.size_bytes(),
        }
    }

    /// The word of +0.0, which sparse codecs leave out, if there is one.
    pub fn zero_word(&self) -> Option<u64> {
        match &self.words {
            Words::Symbols(codebook) => codebook.zero().map(u64::from),
            Words::Values(_) => Some(0),
        }
    }

    /// Values of the codebook; 0 without one.
    pub(super) fn levels(&self) -> usize {
        if let Words::Symbols(codebook) = &self.words { codebook.len() } else { 0 }
    }

    /// What words of this matrix must be.
    pub(super) fn word_check(&self) -> WordCheck {
        match &self.words {
            Words::Symbols(codebook) => WordCheck { below: codebook.len() as u64, exponent: u64::MAX },
            Words::Values(dtype) => WordCheck { below: u64::MAX, exponent: exponent_bits(*dtype) },
        }
    }
}

/// Tells the words that mean something from those that do not; held by value in the loops over them.
#[derive(Clone, Copy)]
pub(super) struct WordCheck {
    /// A symbol is below the number of levels.
    below: u64,
    /// A value is finite: not all bits of its exponent are set.
    exponent: u64,
}

impl WordCheck {
    /// Returns `word` if it is a symbol of the codebook or the bits of a finite value.
    #[inline]
    pub(super) fn word(self, word: u64) -> Result<u64, DecodeError> {
        if word < self.below && word & self.exponent != self.exponent { Ok(word) } else { Err(self.error(word)) }
    }

    #[cold]
    fn error(self, word: u64) -> DecodeError {
        match self.below {
            u64::MAX => DecodeError::NonFinite,
            levels => DecodeError::SymbolOutOfRange { symbol: word, levels: levels as usize },
        }
    }
}

impl Words {
    /// What words stand for, held by value in the loops over them.
    pub(super) fn lookup(&self) -> Lookup<'_> {
        match self {
            Self::Symbols(codebook) => Lookup::Codebook(codebook.values()),
            Self::Values(dtype) => Lookup::Bits(*dtype),
        }
    }
}

/// Turns words into values.
#[derive(Clone, Copy)]
pub(super) enum Lookup<'a> {
    Codebook(&'a [f64]),
    Bits(FloatType),
}

impl Lookup<'_> {
    /// The value of `word`, which was checked, rounded to f32.
    #[inline]
    pub(super) fn to_f32(self, word: u64) -> f32 {
        match self {
            Self::Codebook(values) => values[word as usize] as f32,
            Self::Bits(FloatType::F32) => f32::from_bits(word as u32),
            Self::Bits(dtype) => dtype.from_bits(word) as f32,
        }
    }
}

/// The cells of a matrix as an encoder sees them.
pub(super) struct Cells<'a> {
    values: &'a Values,
    zero: Option<u64>,
}

impl<'a> Cells<'a> {
    pub(super) fn of(matrix: &'a Matrix) -> Self {
        let values = matrix.values();
        let zero = match values {
            Values::Shared { codebook, .. } => codebook.zero().map(u64::from),
            Values::Raw { .. } => Some(0),
        };
        Self { values, zero }
    }

    /// The word of cell `i`, row-major.
    #[inline]
    pub(super) fn word(&self, i: usize) -> u64 {
        match self.values {
            Values::Shared { indices, .. } => u64::from(indices[i]),
            Values::Raw { dtype: FloatType::F32, data: FloatData::F32(data) } => u64::from(data[i].to_bits()),
            Values::Raw { dtype, data } => dtype.to_bits(data.get(i)),
        }
    }

    /// The word of cell `i` unless it is zero.
    #[inline]
    pub(super) fn stored(&self, i: usize) -> Option<u64> {
        Some(self.word(i)).filter(|&word| Some(word) != self.zero)
    }
}

fn fits(rows: usize, cols: usize) -> bool {
    rows <= MAX_CELLS && cols <= MAX_CELLS && rows.checked_mul(cols).is_some_and(|cells| cells <= MAX_CELLS)
}

/// The bits that are all set in a NaN or an infinity, and in no finite value.
fn exponent_bits(dtype: FloatType) -> u64 {
    match dtype {
        FloatType::F16 => 0x7c00,
        FloatType::Bf16 => 0x7f80,
        FloatType::F32 => 0x7f80_0000,
        FloatType::F64 => 0x7ff0_0000_0000_0000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_values_are_told_from_the_others_in_every_type() {
        for dtype in [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64] {
            let check = Head { rows: 1, cols: 1, rows_per_block: 1, words: Words::Values(dtype) }.word_check();
            for word in [0.0, -0.0, 1.0, -65504.0].map(|value| dtype.to_bits(value)) {
                assert_eq!(check.word(word), Ok(word), "{dtype:?}");
            }
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert_eq!(check.word(dtype.to_bits(value)), Err(DecodeError::NonFinite), "{dtype:?} {value}");
            }
        }
    }

    #[test]
    fn the_last_block_takes_the_rest_of_the_rows() {
        let head = Head { rows: 10, cols: 3, rows_per_block: 4, words: Words::Values(FloatType::F32) };
        assert_eq!((0..head.blocks()).map(|b| head.block_rows(b)).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        let whole = Head { rows_per_block: usize::MAX, ..head.clone() };
        assert_eq!((whole.blocks(), whole.block_rows(0)), (1, 0..10));
        assert_eq!(Head { cols: 0, ..head }.blocks(), 0);
    }

    #[test]
    fn shapes_beyond_the_limit_are_refused() {
        let head = |rows, cols| Head { rows, cols, rows_per_block: 1, words: Words::Values(FloatType::F32) };
        assert_eq!(head(1 << 16, 1 << 15).check(), Ok(()));
        for (rows, cols) in [(1 << 16, (1 << 15) + 1), (1 << 40, 1 << 40), (1 << 40, 0), (0, usize::MAX)] {
            assert_eq!(head(rows, cols).check(), Err(DecodeError::TooManyCells { rows, cols }));
        }
    }
}
