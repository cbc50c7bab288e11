//! A codebook: the distinct values of one quantised tensor, or of several that share them.

use super::FloatType;

/// Most symbols a codebook may hold, zero included: a symbol is a u16.
pub const MAX_LEVELS: usize = 1 << 16;

/// Distinct finite values of one float type in ascending order; a symbol is an index into it.
///
/// The order is IEEE 754's total order, so -0.0 stands before +0.0 and both may be present. Values are held as f64,
/// which every supported type widens to exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Codebook {
    dtype: FloatType,
    values: Vec<f64>,
}

/// Why a list of values is not a codebook.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodebookError {
    /// There are no values, or more than a symbol can name.
    #[error("a codebook holds 1 to {MAX_LEVELS} values, found {found}")]
    Length { found: usize },
    /// A value is NaN or infinite.
    #[error("codebook value {index} is not finite")]
    NonFinite { index: usize },
    /// The values do not rise strictly.
    #[error("codebook value {index} does not rise above the one before it")]
    NotAscending { index: usize },
    /// The bytes are not a whole number of values.
    #[error("{found} bytes are not a whole number of {dtype} values", dtype = .dtype.name())]
    PartialValue { found: usize, dtype: FloatType },
}

impl Codebook {
    /// Checks `values`, each already representable in `dtype`.
    ///
    /// # Errors
    /// A [`CodebookError`] that names the first offending value.
    pub fn new(dtype: FloatType, values: Vec<f64>) -> Result<Self, CodebookError> {
        if values.is_empty() || values.len() > MAX_LEVELS {
            return Err(CodebookError::Length { found: values.len() });
        }
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(CodebookError::NonFinite { index });
        }
        if let Some(i) = values.windows(2).position(|w| w[0].total_cmp(&w[1]).is_ge()) {
            return Err(CodebookError::NotAscending { index: i + 1 });
        }
        Ok(Self { dtype, values })
    }

    /// Rounds `values` to `dtype`, sorts them and drops duplicates.
    ///
    /// # Errors
    /// As [`Codebook::new`].
    pub fn from_unsorted(dtype: FloatType, values: impl IntoIterator<Item = f64>) -> Result<Self, CodebookError> {
        let mut values: Vec<f64> = values.into_iter().map(|v| dtype.round(v)).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup_by(|a, b| a.to_bits() == b.to_bits());
        Self::new(dtype, values)
    }

    /// Reads little-endian values of `dtype`.
    ///
    /// # Errors
    /// As [`Codebook::new`], and [`CodebookError::PartialValue`].
    pub fn from_le_bytes(dtype: FloatType, bytes: &[u8]) -> Result<Self, CodebookError> {
        let size = dtype.size_bytes();
        if !bytes.len().is_multiple_of(size) {
            return Err(CodebookError::PartialValue { found: bytes.len(), dtype });
        }
        if bytes.len() / size > MAX_LEVELS {
            return Err(CodebookError::Length { found: bytes.len() / size });
        }
        let data = super::FloatData::from_le_bytes(dtype, bytes);
        Self::new(dtype, (0..data.len()).map(|i| data.get(i)).collect())
    }

    /// The values as little-endian `dtype`: what an artifact stores.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let size = self.dtype.size_bytes();
        self.values.iter().flat_map(|&v| self.dtype.to_bits(v).to_le_bytes().into_iter().take(size)).collect()
    }

    /// Element type of the values.
    pub fn dtype(&self) -> FloatType {
        self.dtype
    }

    /// The values, ascending.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Number of symbols, zero included.
    #[allow(clippy::len_without_is_empty, reason = "a codebook is never empty")]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The symbol of `value`, compared bit by bit (-0.0 is not +0.0).
    pub fn symbol(&self, value: f64) -> Option<u16> {
        self.values.binary_search_by(|v| v.total_cmp(&value)).ok().map(|i| i as u16)
    }

    /// The symbol of +0.0, the value that sparse codecs leave out.
    pub fn zero(&self) -> Option<u16> {
        self.symbol(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_zero_is_a_value_of_its_own() {
        let codebook = Codebook::from_unsorted(FloatType::F32, [0.0, 1.0, -0.0, 0.0]).unwrap();
        assert_eq!(codebook.len(), 3);
        assert_eq!(codebook.zero(), Some(1));
        assert_eq!(codebook.symbol(-0.0), Some(0));
    }

    #[test]
    fn bad_values_are_named() {
        assert_eq!(Codebook::new(FloatType::F32, vec![]), Err(CodebookError::Length { found: 0 }));
        assert_eq!(Codebook::new(FloatType::F32, vec![1.0, f64::NAN]), Err(CodebookError::NonFinite { index: 1 }));
        assert_eq!(Codebook::new(FloatType::F32, vec![1.0, 1.0]), Err(CodebookError::NotAscending { index: 1 }));
    }

    #[test]
    fn bytes_round_trip_in_the_tensors_own_type() {
        let codebook = Codebook::from_unsorted(FloatType::F16, [0.1, -3.0]).unwrap();
        let bytes = codebook.to_le_bytes();
        assert_eq!(bytes.len(), 4);
        assert_eq!(Codebook::from_le_bytes(FloatType::F16, &bytes).unwrap(), codebook);
        assert!(Codebook::from_le_bytes(FloatType::F16, &bytes[..3]).is_err());
    }
}
