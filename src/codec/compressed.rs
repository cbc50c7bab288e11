//! An encoded matrix in memory: validated once, then decoded by rows or multiplied without being expanded.

use std::ops::Range;

use bytes::Bytes;

use super::{CodecId, DecodeError, Head};
use crate::tensor::Matrix;

/// An encoded matrix that was checked from end to end when it was opened.
#[derive(Debug)]
pub struct CompressedMatrix {
    head: Head,
}

impl CompressedMatrix {
    /// Checks `payload` completely, every block walked, before it is believed. Allocates nothing that the payload has
    /// not earned.
    pub fn open(codec: CodecId, head: Head, payload: Bytes) -> Result<Self, DecodeError> {
        todo!()
    }

    pub fn codec(&self) -> CodecId {
        todo!()
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// `out = self . x`: `x` is cols x `batch`, row-major (all samples of input 0 first); `out` is rows x `batch`, row-major, and is
    /// overwritten. Parallel over blocks on the current rayon pool; the result does not depend on the threads.
    pub fn multiply(&self, x: &[f32], batch: usize, out: &mut [f32]) {
        todo!()
    }

    /// The same for the rows of one group only: `rows` selects the output units (a grouped convolution multiplies each group with its own inputs).
    pub fn multiply_rows(&self, rows: Range<usize>, x: &[f32], batch: usize, out: &mut [f32]) {
        todo!()
    }

    /// One product per group of rows, all in one walk: what grouped and depthwise convolutions need. Rows are split into
    /// `groups` equal parts; `x` is (groups x cols) x `batch`, and part `g` of the rows reads part `g` of `x`. `out` is as in
    /// [`CompressedMatrix::multiply`].
    pub fn multiply_grouped(&self, groups: usize, x: &[f32], batch: usize, out: &mut [f32]) {
        todo!()
    }

    /// Decodes `rows` into `out`, row-major, rounded to f32.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        todo!()
    }

    /// Decodes the whole matrix, bit by bit as it was encoded.
    pub fn decode(&self) -> Matrix {
        todo!()
    }

    /// Bytes of the payload: codes, dictionary, indices and block table; codebook and header apart.
    pub fn size_bytes(&self) -> usize {
        todo!()
    }

    /// Bytes this holds in memory, codebook apart (it may be shared).
    pub fn resident_bytes(&self) -> usize {
        todo!()
    }
}
