//! Dense linear algebra of calibration: products in blocks, Cholesky factors, inverses.
//!
//! Work is cut into chunks of fixed size, so any number of threads gives the same bits.

mod cholesky;
mod product;

pub(crate) use cholesky::{NotPositive, factor, invert, solve_factored};
pub(crate) use product::{Strided, add_product, product};
