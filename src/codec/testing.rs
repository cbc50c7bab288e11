//! The matrices whose bits the unit tests write out by hand.

use std::sync::Arc;

use crate::tensor::{Codebook, FloatData, FloatType, Matrix};

/// ```text
///  0 -1  0
///  0  0  0
///  2  0  2
/// ```
/// Symbols: 0 is -1, 1 is 0, 2 is 2.
pub(super) fn shared_3x3() -> Matrix {
    let codebook = Codebook::new(FloatType::F32, vec![-1.0, 0.0, 2.0]).unwrap();
    Matrix::shared(3, 3, Arc::new(codebook), vec![1, 0, 1, 1, 1, 1, 2, 1, 2]).unwrap()
}

/// The same in f16, with -0 at the end of the second row.
pub(super) fn raw_3x3() -> Matrix {
    let values = vec![0.0, -1.0, 0.0, 0.0, 0.0, -0.0, 2.0, 0.0, 2.0];
    Matrix::raw(3, 3, FloatType::F16, FloatData::F32(values)).unwrap()
}
