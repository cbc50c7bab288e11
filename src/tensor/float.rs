//! The floating-point types a weight may have, and a buffer of them that loses nothing.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Element type of a float tensor, as stored in models and artifacts (little-endian).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl FloatType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The name used in artifacts, reports and JSON: `f16`, `bf16`, `f32` or `f64`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// The bits of `value` rounded to this type (ties to even), in the low end of the word.
    pub fn to_bits(self, value: f64) -> u64 {
        match self {
            Self::F16 => u64::from(f16::from_f64(value).to_bits()),
            Self::Bf16 => u64::from(bf16::from_f64(value).to_bits()),
            Self::F32 => u64::from((value as f32).to_bits()),
            Self::F64 => value.to_bits(),
        }
    }

    /// The value whose bits stand in the low end of `bits`; exact, since every type widens to f64.
    pub fn from_bits(self, bits: u64) -> f64 {
        match self {
            Self::F16 => f16::from_bits(bits as u16).to_f64(),
            Self::Bf16 => bf16::from_bits(bits as u16).to_f64(),
            Self::F32 => f64::from(f32::from_bits(bits as u32)),
            Self::F64 => f64::from_bits(bits),
        }
    }

    /// `value` rounded to this type and widened again.
    pub fn round(self, value: f64) -> f64 {
        self.from_bits(self.to_bits(value))
    }
}

/// A buffer of floats of one [`FloatType`]. The half-width types are held widened to f32, which is exact both ways.
#[derive(Debug, Clone, PartialEq)]
pub enum FloatData {
    /// f16, bf16 or f32 values.
    F32(Vec<f32>),
    /// f64 values.
    F64(Vec<f64>),
}

impl FloatData {
    /// Reads `bytes`, little-endian elements of `dtype`. A trailing partial element is ignored.
    pub fn from_le_bytes(dtype: FloatType, bytes: &[u8]) -> Self {
        match dtype {
            FloatType::F16 => {
                let values = bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32());
                Self::F32(values.collect())
            }
            FloatType::Bf16 => {
                let values = bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32());
                Self::F32(values.collect())
            }
            FloatType::F32 => Self::F32(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            FloatType::F64 => Self::F64(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
        }
    }

    /// Appends every element to `out` as little-endian `dtype`, rounding to it (ties to even).
    pub fn write_le_bytes(&self, dtype: FloatType, out: &mut Vec<u8>) {
        out.reserve(self.len() * dtype.size_bytes());
        for i in 0..self.len() {
            let bits = dtype.to_bits(self.get(i)).to_le_bytes();
            out.extend_from_slice(&bits[..dtype.size_bytes()]);
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// True when there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i`, widened.
    ///
    /// # Panics
    /// If `i` is out of range.
    pub fn get(&self, i: usize) -> f64 {
        match self {
            Self::F32(values) => f64::from(values[i]),
            Self::F64(values) => values[i],
        }
    }

    /// The elements rounded to f32; borrowed where they already are.
    pub fn to_f32(&self) -> std::borrow::Cow<'_, [f32]> {
        match self {
            Self::F32(values) => values.into(),
            Self::F64(values) => values.iter().map(|&v| v as f32).collect::<Vec<_>>().into(),
        }
    }

    /// Index of the first NaN or infinity, if there is one.
    pub fn first_non_finite(&self) -> Option<usize> {
        match self {
            Self::F32(values) => values.iter().position(|v| !v.is_finite()),
            Self::F64(values) => values.iter().position(|v| !v.is_finite()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_float_survives_widening() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            if half.is_finite() {
                assert_eq!(FloatType::F16.to_bits(FloatType::F16.from_bits(u64::from(bits))), u64::from(bits));
            }
            if brain.is_finite() {
                assert_eq!(FloatType::Bf16.to_bits(FloatType::Bf16.from_bits(u64::from(bits))), u64::from(bits));
            }
        }
    }

    #[test]
    fn bytes_round_trip_in_every_type() {
        let values = [0.0, -0.0, 1.5, -2.0, 0.25];
        for dtype in [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::F64] {
            let mut bytes = Vec::new();
            FloatData::F64(values.to_vec()).write_le_bytes(dtype, &mut bytes);
            assert_eq!(bytes.len(), values.len() * dtype.size_bytes());
            let back = FloatData::from_le_bytes(dtype, &bytes);
            let bits = |i: usize| back.get(i).to_bits();
            assert!((0..values.len()).all(|i| bits(i) == values[i].to_bits()), "{dtype:?}");
        }
    }

    #[test]
    fn first_non_finite_names_the_index() {
        assert_eq!(FloatData::F32(vec![0.0, f32::NAN]).first_non_finite(), Some(1));
        assert_eq!(FloatData::F64(vec![f64::INFINITY]).first_non_finite(), Some(0));
        assert_eq!(FloatData::F32(vec![1.0]).first_non_finite(), None);
    }
}
