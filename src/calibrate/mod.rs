//! Calibration: what a few hundred unlabelled samples tell of each layer's inputs, and what can be done with it.
//!
//! A layer's outputs change by `(W - W0) X` when its weights do, so the squared change is a quadratic form of the weights with the
//! Hessian `2 X X^T` of its inputs. [`Problem`] is that form; [`Problem::solve`] prunes by it, [`Problem::descend`] rounds by it,
//! [`Problem::curve`] tells how it grows with the sparsity, and [`share_out`] gives each layer of a network its sparsity.

mod budget;
mod collect;
mod curve;
mod descent;
mod error;
mod fold;
mod normalization;
mod obs;
mod problem;
mod rate;
mod refit;
#[cfg(test)]
mod tests;

pub use budget::share_out;
pub(crate) use collect::{LIMITS, Limits, check_layer, collect};
pub use curve::{CURVE, Curve};
pub use error::CalibrateError;
pub(crate) use fold::fold_normalisations;
pub(crate) use normalization::{ChannelMoments, moved};
pub use problem::{Importances, Problem};
pub use rate::{RatePoint, bits_of, choose_rates};
