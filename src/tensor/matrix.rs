//! A weight matrix, its values shared through a codebook or raw.

use std::sync::Arc;

use super::{Codebook, FloatData, FloatType};

/// A weight matrix with one row per output unit, row-major: what codecs encode.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    values: Values,
}

/// The cells of a [`Matrix`], row-major, `rows x cols` of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Each cell is a symbol of the codebook.
    Shared {
        /// The distinct values; several matrices may share one.
        codebook: Arc<Codebook>,
        /// Symbols below `codebook.len()`.
        indices: Vec<u16>,
    },
    /// More distinct values than a codebook holds, or none worth sharing: each cell is its own value.
    Raw {
        /// Element type in the artifact.
        dtype: FloatType,
        /// The finite values.
        data: FloatData,
    },
}

/// Why cells do not form a matrix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MatrixError {
    /// The number of cells is not rows times columns.
    #[error("{rows} x {cols} cells expected, found {found}")]
    CellCount { rows: usize, cols: usize, found: usize },
    /// A symbol points past the codebook.
    #[error("symbol {symbol} at cell {index} is outside a codebook of {levels} values")]
    SymbolOutOfRange { symbol: u16, index: usize, levels: usize },
    /// A raw value is NaN or infinite.
    #[error("the value at cell {index} is not finite")]
    NonFinite { index: usize },
}

impl Matrix {
    /// A matrix of symbols.
    ///
    /// # Errors
    /// [`MatrixError::CellCount`] or [`MatrixError::SymbolOutOfRange`].
    pub fn shared(rows: usize, cols: usize, codebook: Arc<Codebook>, indices: Vec<u16>) -> Result<Self, MatrixError> {
        check_count(rows, cols, indices.len())?;
        let levels = codebook.len();
        if let Some(index) = indices.iter().position(|&s| usize::from(s) >= levels) {
            return Err(MatrixError::SymbolOutOfRange { symbol: indices[index], index, levels });
        }
        Ok(Self { rows, cols, values: Values::Shared { codebook, indices } })
    }

    /// A matrix of raw values, each representable in `dtype`.
    ///
    /// # Errors
    /// [`MatrixError::CellCount`] or [`MatrixError::NonFinite`].
    pub fn raw(rows: usize, cols: usize, dtype: FloatType, data: FloatData) -> Result<Self, MatrixError> {
        check_count(rows, cols, data.len())?;
        match data.first_non_finite() {
            Some(index) => Err(MatrixError::NonFinite { index }),
            None => Ok(Self { rows, cols, values: Values::Raw { dtype, data } }),
        }
    }

    /// Number of rows: output units.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: inputs of one output unit.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The cells.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Takes the cells out.
    pub fn into_values(self) -> Values {
        self.values
    }

    /// The same matrix with every value in full.
    pub fn to_raw(&self) -> Self {
        let dtype = self.dtype();
        let cells = (0..self.rows * self.cols).map(|i| self.value(i));
        let data = match dtype {
            FloatType::F64 => FloatData::F64(cells.collect()),
            FloatType::F16 | FloatType::Bf16 | FloatType::F32 => FloatData::F32(cells.map(|v| v as f32).collect()),
        };
        Self { rows: self.rows, cols: self.cols, values: Values::Raw { dtype, data } }
    }

    /// Element type of the cells.
    pub fn dtype(&self) -> FloatType {
        match &self.values {
            Values::Shared { codebook, .. } => codebook.dtype(),
            Values::Raw { dtype, .. } => *dtype,
        }
    }

    /// The value of cell `i`, row-major.
    ///
    /// # Panics
    /// If `i` is out of range.
    pub fn value(&self, i: usize) -> f64 {
        match &self.values {
            Values::Shared { codebook, indices } => codebook.values()[usize::from(indices[i])],
            Values::Raw { data, .. } => data.get(i),
        }
    }
}

fn check_count(rows: usize, cols: usize, found: usize) -> Result<(), MatrixError> {
    if rows.checked_mul(cols) == Some(found) { Ok(()) } else { Err(MatrixError::CellCount { rows, cols, found }) }
}
