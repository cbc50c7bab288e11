//! stub

/// The distribution of surviving weights: distinct values with counts, exact or as a fine histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {}

/// Gathers a [`Distribution`] from one layer or from many, in bounded memory, in any order.
#[derive(Debug, Clone, Default)]
pub struct DistributionBuilder {}

impl Distribution {
    /// The distribution of one layer.
    pub fn of(weights: &[f32]) -> Self {
        todo!()
    }
}

impl DistributionBuilder {
    /// Adds the weights of a layer, pruned ones as zeros.
    pub fn observe(&mut self, weights: &[f32]) {
        todo!()
    }

    /// Everything observed.
    pub fn finish(self) -> Distribution {
        todo!()
    }
}
