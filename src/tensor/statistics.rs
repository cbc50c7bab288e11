//! What a calibration set tells of a layer's inputs: their means and second moments, per group of a convolution.

use crate::algebra::{Strided, add_product};

/// Means and second moments of the inputs of one layer, over the columns that it multiplied by.
///
/// The Hessian of the layer's squared output error, `H = 2 X X^T`, is `2 n` times the second moments of `n` columns; the
/// factor changes no method's choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    groups: Vec<Moments>,
    columns: u64,
}

/// Moments of the inputs of one group: `inputs` means and `inputs x inputs` second moments.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    mean: Vec<f64>,
    second: Vec<f64>,
}

impl Moments {
    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.mean.len()
    }

    /// Mean of each input.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Mean of the product of inputs `i` and `j`, at `i * inputs + j`.
    pub fn second(&self) -> &[f64] {
        &self.second
    }

    /// The covariance of the inputs: the Hessian where a bias takes up what changes in the mean.
    pub fn covariance(&self) -> Vec<f64> {
        let mut matrix = self.second.clone();
        for (row, mean) in matrix.chunks_exact_mut(self.inputs().max(1)).zip(&self.mean) {
            row.iter_mut().zip(&self.mean).for_each(|(value, other)| *value -= mean * other);
        }
        matrix
    }
}

impl Statistics {
    /// One for each group; a layer without groups has one.
    pub fn groups(&self) -> &[Moments] {
        &self.groups
    }

    /// Whether all inputs were.
    pub fn is_finite(&self) -> bool {
        self.groups.iter().all(|moments| moments.mean.iter().chain(&moments.second).all(|value| value.is_finite()))
    }

    /// Number of columns gone through.
    pub fn columns(&self) -> u64 {
        self.columns
    }

    /// The group that `row` of `rows` belongs to.
    pub fn group_of(&self, row: usize, rows: usize) -> &Moments {
        &self.groups[row / (rows / self.groups.len()).max(1)]
    }

    /// The root of the mean square of input `col` of the group of `row`.
    pub fn norm(&self, row: usize, rows: usize, col: usize) -> f64 {
        let moments = self.group_of(row, rows);
        moments.second[col * moments.inputs() + col].max(0.0).sqrt()
    }
}

/// Sums up [`Statistics`], a block of columns at a time, in f64.
#[derive(Debug)]
pub struct StatisticsBuilder {
    groups: Vec<Moments>,
    columns: u64,
}

impl StatisticsBuilder {
    /// For `groups` groups of `inputs` inputs each.
    pub fn new(groups: usize, inputs: usize) -> Self {
        let zero = Moments { mean: vec![0.0; inputs], second: vec![0.0; inputs * inputs] };
        Self { groups: vec![zero; groups], columns: 0 }
    }

    /// Bytes of the moments, without overflow.
    pub fn size_bytes(groups: usize, inputs: usize) -> u64 {
        let cells = (inputs as u64).saturating_mul(inputs as u64).saturating_mul(groups as u64);
        cells.saturating_mul(size_of::<f64>() as u64)
    }

    /// Adds `columns` columns; `block` is (groups x inputs) x `columns`, row-major.
    ///
    /// # Panics
    /// If `block` is of another size.
    pub fn add(&mut self, block: &[f32], columns: usize) {
        let inputs = self.groups.first().map_or(0, Moments::inputs);
        assert_eq!(block.len(), self.groups.len() * inputs * columns, "{columns} columns");
        self.columns += columns as u64;
        if block.is_empty() {
            return;
        }
        for (moments, block) in self.groups.iter_mut().zip(block.chunks_exact(inputs * columns)) {
            let block: Vec<f64> = block.iter().map(|&value| f64::from(value)).collect();
            for (mean, row) in moments.mean.iter_mut().zip(block.chunks_exact(columns)) {
                *mean += row.iter().sum::<f64>();
            }
            let block = Strided::packed(&block, inputs, columns);
            add_product(1.0, block, block.transposed(), &mut moments.second, inputs);
        }
    }

    /// The means over all columns.
    pub fn finish(mut self) -> Statistics {
        let factor = 1.0 / self.columns.max(1) as f64;
        for moments in &mut self.groups {
            moments.mean.iter_mut().chain(&mut moments.second).for_each(|value| *value *= factor);
        }
        Statistics { groups: self.groups, columns: self.columns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_match_the_triple_loop() {
        let (groups, inputs, columns) = (2, 70, 33);
        let value = |i: usize| ((i * 7919) % 257) as f32 / 64.0 - 2.0;
        let block: Vec<f32> = (0..groups * inputs * columns).map(value).collect();
        let mut builder = StatisticsBuilder::new(groups, inputs);
        builder.add(&block, columns);
        builder.add(&block, columns);
        let statistics = builder.finish();
        assert_eq!(statistics.columns(), 2 * columns as u64);
        for (group, moments) in statistics.groups().iter().enumerate() {
            let at = |i: usize, column: usize| f64::from(block[(group * inputs + i) * columns + column]);
            for i in 0..inputs {
                let mean = (0..columns).map(|c| at(i, c)).sum::<f64>() / columns as f64;
                assert!((moments.mean()[i] - mean).abs() < 1e-12);
                for j in 0..inputs {
                    let second = (0..columns).map(|c| at(i, c) * at(j, c)).sum::<f64>() / columns as f64;
                    assert!((moments.second()[i * inputs + j] - second).abs() < 1e-12);
                }
            }
        }
    }
}
