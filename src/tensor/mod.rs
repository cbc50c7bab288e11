//! What the whole core computes on: a weight tensor seen as a matrix, with its values stored once in a codebook or raw.
//!
//! A matrix has one row per OUTPUT unit of its operator (the base paper's column is our row), row-major. How an ONNX
//! tensor becomes such a matrix is [`Layout`].

mod codebook;
mod float;
mod layer;
mod layout;
mod matrix;
mod statistics;

pub use codebook::{Codebook, CodebookError, MAX_LEVELS};
pub use float::{FloatData, FloatType};
pub use layer::LayerContext;
pub use layout::Layout;
pub use matrix::{Matrix, MatrixError, Values};
pub use statistics::{Moments, Statistics, StatisticsBuilder};
