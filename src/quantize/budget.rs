//! How many values a quantiser may leave: counted in levels, or in bits.

use serde::{Deserialize, Serialize};

use crate::tensor::MAX_LEVELS;

/// A number of non-zero values, 1 to 65,535: with zero, a codebook's 65,536 symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Levels(u16);

/// A number of levels that no codebook holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("levels must be 1 to {max}, found {found}", max = Levels::MAX)]
pub struct LevelsError {
    /// What was asked for.
    pub found: i64,
}

impl Levels {
    /// Most non-zero values of a codebook.
    pub const MAX: usize = MAX_LEVELS - 1;

    /// Checks `levels`.
    ///
    /// # Errors
    /// [`LevelsError`] unless 1 <= `levels` <= [`Levels::MAX`].
    pub fn new(levels: i64) -> Result<Self, LevelsError> {
        match u16::try_from(levels) {
            Ok(count @ 1..) => Ok(Self(count)),
            _ => Err(LevelsError { found: levels }),
        }
    }

    /// The number.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for Levels {
    /// The paper's usual k.
    fn default() -> Self {
        Self(32)
    }
}

impl TryFrom<i64> for Levels {
    type Error = LevelsError;

    fn try_from(levels: i64) -> Result<Self, LevelsError> {
        Self::new(levels)
    }
}

impl From<Levels> for i64 {
    fn from(levels: Levels) -> Self {
        Self::from(levels.0)
    }
}

/// Bits a weight, above 0 and at most 16.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Bits(f64);

/// Bits that no codebook can meet.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("bits must be above 0 and at most {max}, found {found}", max = Bits::MAX)]
pub struct BitsError {
    /// What was asked for.
    pub found: f64,
}

impl Bits {
    /// Bits of the largest codebook's symbols.
    pub const MAX: f64 = 16.0;

    /// Checks `bits`.
    ///
    /// # Errors
    /// [`BitsError`] unless 0 < `bits` <= 16.
    pub fn new(bits: f64) -> Result<Self, BitsError> {
        if bits > 0.0 && bits <= Self::MAX { Ok(Self(bits)) } else { Err(BitsError { found: bits }) }
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The levels that, with zero, fill symbols of this width: `floor(2^bits) - 1`, and at least 1.
    pub fn levels(self) -> Levels {
        let symbols = libm::exp2(self.0).floor() as usize;
        Levels(symbols.saturating_sub(1).clamp(1, Levels::MAX) as u16)
    }
}

impl TryFrom<f64> for Bits {
    type Error = BitsError;

    fn try_from(bits: f64) -> Result<Self, BitsError> {
        Self::new(bits)
    }
}

impl From<Bits> for f64 {
    fn from(bits: Bits) -> Self {
        bits.0
    }
}

/// What limits an entropy-constrained codebook.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// The number of non-zero values.
    Levels(Levels),
    /// The entropy of the surviving weights' values, in bits a surviving weight.
    Bits(Bits),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_no_codebook_holds_are_named() {
        for found in [0, -1, 65_536, 70_000] {
            assert_eq!(Levels::new(found), Err(LevelsError { found }));
        }
        assert_eq!(LevelsError { found: 70_000 }.to_string(), "levels must be 1 to 65535, found 70000");
        assert_eq!(Levels::new(65_535).map(Levels::get), Ok(65_535));
    }

    #[test]
    fn bits_leave_room_for_zero() {
        for (bits, levels) in [(0.5, 1), (1.0, 1), (2.0, 3), (2.5, 4), (5.0, 31), (16.0, 65_535)] {
            assert_eq!(Bits::new(bits).unwrap().levels().get(), levels, "{bits}");
        }
        assert!(Bits::new(0.0).is_err() && Bits::new(16.1).is_err() && Bits::new(f64::NAN).is_err());
    }
}
