//! What a pruning criterion and a quantiser see of a layer.

use super::Statistics;

/// One layer as the methods see it: its weights as a matrix with one row per output unit.
///
/// Built by [`LayerContext::new`] only, so that what a calibration set measures (the layer's inputs, its Hessian) joins
/// here as a field of its own without touching the methods that do without.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LayerContext<'a> {
    /// Name of the weight tensor.
    pub name: &'a str,
    /// Output units.
    pub rows: usize,
    /// Inputs of one output unit.
    pub cols: usize,
    /// `rows x cols` finite weights, row-major. Weights of f64 tensors arrive rounded to f32.
    pub weights: &'a [f32],
    /// What a calibration set tells of its inputs; none where there is no set, or nothing that multiplies by the layer.
    pub statistics: Option<&'a Statistics>,
}

impl<'a> LayerContext<'a> {
    /// A layer without calibration statistics.
    ///
    /// # Panics
    /// If `weights` does not hold `rows x cols` values.
    pub fn new(name: &'a str, rows: usize, cols: usize, weights: &'a [f32]) -> Self {
        assert_eq!(Some(weights.len()), rows.checked_mul(cols), "a {rows} x {cols} layer");
        Self { name, rows, cols, weights, statistics: None }
    }

    /// The same layer with calibration statistics.
    pub fn with_statistics(self, statistics: Option<&'a Statistics>) -> Self {
        Self { statistics, ..self }
    }
}
