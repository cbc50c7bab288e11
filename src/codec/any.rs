//! The closed set of codecs: the one place that lists them all.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::csc::Csc;
use super::cser::Cser;
use super::csr::Csr;
use super::delta::Delta;
use super::dense::Dense;
use super::encode::encode_with;
use super::ham::Ham;
use super::index_map::IndexMap;
use super::mix::Mix;
use super::pco::Pco;
use super::rans::Rans;
use super::sham::Sham;
use super::visitors::Inputs;
use super::{Codec, DecodeError, EncodeError, Head, Visitor};
use crate::progress::Progress;
use crate::tensor::Matrix;

/// The codecs; the discriminant is the number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "service", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CodecId {
    /// Every symbol or value in full.
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
    /// Gaps between non-zeros and their symbols, or all symbols, in interleaved asymmetric numeral systems.
    Rans = 7,
    /// Context mixing with arithmetic coding: the smallest, for files; it is transcoded to be multiplied by.
    Mix = 8,
    /// Rows as other rows and the cells in which they differ, along trees; the changes by rANS.
    Delta = 9,
    /// Raw values by the pco format.
    Pco = 10,
}

/// Ties each codec's number to its name and its type, and passes calls on.
macro_rules! codecs {
    ($($id:ident $name:literal,)*) => {
        impl CodecId {
            /// Every codec, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$id),*];

            /// The name used in recipes and reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$id => $name),* }
            }

            /// As [`Codec::least_bytes`].
            pub(super) fn least_bytes(self, head: &Head, stored: usize) -> usize {
                match self { $(Self::$id => $id::least_bytes(head, stored)),* }
            }
        }

        /// A codec bound to one encoded matrix.
        #[derive(Debug)]
        pub(super) enum AnyCodec { $($id($id)),* }

        impl AnyCodec {
            pub(super) fn read_shared(id: CodecId, head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
                match id { $(CodecId::$id => $id::read_shared(head, input).map(Self::$id)),* }
            }

            pub(super) fn visit_block<V: Visitor>(
                &self,
                head: &Head,
                block: &[u8],
                rows: Range<usize>,
                visitor: &mut V,
            ) -> Result<(), DecodeError> {
                match self { $(Self::$id(codec) => codec.visit_block(head, block, rows, visitor)),* }
            }

            pub(super) fn check_block(
                &self,
                head: &Head,
                block: &[u8],
                rows: Range<usize>,
            ) -> Result<usize, DecodeError> {
                match self { $(Self::$id(codec) => codec.check_block(head, block, rows)),* }
            }

            pub(super) fn multiply_block(
                &self,
                head: &Head,
                block: (&[u8], Range<usize>),
                wanted: Range<usize>,
                inputs: Inputs,
                out: &mut [f32],
            ) -> bool {
                match self { $(Self::$id(codec) => codec.multiply_block(head, block, wanted, inputs, out)),* }
            }

            pub(super) fn resident_bytes(&self) -> usize {
                match self { $(Self::$id(codec) => codec.resident_bytes()),* }
            }
        }

        /// Encodes `matrix` with codec `id`, whose head is `head`.
        pub(super) fn encode_any(
            id: CodecId,
            matrix: &Matrix,
            head: &Head,
            progress: &dyn Progress,
        ) -> Result<Vec<u8>, EncodeError> {
            match id { $(CodecId::$id => encode_with::<$id>(matrix, head, progress)),* }
        }
    };
}

codecs! {
    Dense "dense",
    Csr "csr",
    Csc "csc",
    IndexMap "index_map",
    Ham "ham",
    Sham "sham",
    Cser "cser",
    Rans "rans",
    Mix "mix",
    Delta "delta",
    Pco "pco",
}

impl CodecId {
    /// The codecs that products run on, in the order of their numbers.
    pub const SERVING: &[Self] = &[
        Self::Dense,
        Self::Csr,
        Self::Csc,
        Self::IndexMap,
        Self::Ham,
        Self::Sham,
        Self::Cser,
        Self::Rans,
        Self::Delta,
        Self::Pco,
    ];

    /// True if products run on the encoded form; a matrix in another codec is transcoded before.
    pub const fn is_serving(self) -> bool {
        !matches!(self, Self::Mix)
    }

    /// Time that encoding a cell takes, as a multiple of what most codecs take.
    pub const fn encoding_work(self) -> u64 {
        match self {
            Self::Mix => 100,
            Self::Delta => 4,
            _ => 1,
        }
    }
}

impl TryFrom<u8> for CodecId {
    type Error = DecodeError;

    /// The codec of a number on the wire.
    fn try_from(number: u8) -> Result<Self, DecodeError> {
        Self::ALL.iter().copied().find(|&id| id as u8 == number).ok_or(DecodeError::UnknownCodec { number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_codecs_are_those_that_products_run_on() {
        let serving: Vec<CodecId> = CodecId::ALL.iter().copied().filter(|id| id.is_serving()).collect();
        assert_eq!(serving, CodecId::SERVING);
    }

    #[test]
    fn numbers_and_names_lead_back_to_their_codec() {
        for &id in CodecId::ALL {
            assert_eq!(CodecId::try_from(id as u8), Ok(id));
            assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{}\"", id.name()));
        }
        assert!(CodecId::ALL.is_sorted());
        assert_eq!(CodecId::try_from(255), Err(DecodeError::UnknownCodec { number: 255 }));
    }
}
