//! What a layer's weights cost in its outputs: the quadratic form that calibration works on.

use std::ops::Range;

use rayon::prelude::*;

use super::{CalibrateError, refit};
use crate::algebra::{Strided, add_product, invert, product};
use crate::progress::Progress;
use crate::tensor::{LayerContext, Statistics};

/// A layer and its Hessian, scaled to a diagonal of ones.
pub struct Problem {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) groups: Vec<Group>,
    /// The layer's weights, each times its input's scale: rows x cols.
    pub(super) target: Vec<f32>,
    /// `target . H`.
    pub(super) gradient: Vec<f64>,
    /// `tr target . H . target^T`.
    pub(super) energy: f64,
}

/// What the square of each weight of a layer costs its outputs.
pub struct Importances {
    rows: usize,
    cols: usize,
    /// One for each input of each group of rows.
    of_inputs: Vec<f64>,
}

impl Importances {
    /// The weights of the layer, rows x cols, each with its importance.
    ///
    /// # Panics
    /// If they are not as many as the layer's.
    pub fn pair(&self, weights: &[f32]) -> impl Iterator<Item = (f32, f64)> {
        assert_eq!(weights.len(), self.rows * self.cols);
        let cols = self.cols.max(1);
        let per_group = (weights.len() / (self.of_inputs.len() / cols).max(1)).max(1);
        let importance = move |cell: usize| self.of_inputs[cell / per_group * cols + cell % cols];
        weights.iter().enumerate().map(move |(cell, &weight)| (weight, importance(cell)))
    }
}

/// The rows that share a Hessian.
pub(super) struct Group {
    pub(super) rows: Range<usize>,
    /// cols x cols, damped, its diagonal ones.
    pub(super) hessian: Vec<f64>,
    /// The roots of the damped diagonal.
    pub(super) scale: Vec<f64>,
}

impl Problem {
    /// Bytes that a problem takes while it is solved, at most, without overflow.
    pub fn size_bytes(rows: usize, cols: usize, groups: usize) -> u64 {
        // Per group the Hessian, an inverse in f64 with what it is made of, and in f32; the equations of rows; per cell target
        // and gradient, and the state of the iteration.
        let square = (cols as u64).saturating_mul(cols as u64).saturating_mul(12 * groups as u64 + 24);
        let equations = refit::equations_bytes(rows, cols);
        let cells = (rows as u64).saturating_mul(cols as u64).saturating_mul(48);
        square.saturating_add(equations).saturating_add(cells)
    }

    /// The problem of `layer` with the moments of its inputs. `damping` is added to the diagonal of the Hessian, times its
    /// mean. Where `is_centred`, a bias takes up what changes in the mean of the outputs.
    ///
    /// # Panics
    /// If the statistics are of another layer.
    pub fn new(layer: &LayerContext<'_>, statistics: &Statistics, damping: f64, is_centred: bool) -> Self {
        let (rows, cols, count) = (layer.rows, layer.cols, statistics.groups().len());
        assert!(count > 0 && rows.is_multiple_of(count), "{rows} rows in {count} groups");
        let per_group = rows / count;
        let mut groups = Vec::with_capacity(count);
        for (index, moments) in statistics.groups().iter().enumerate() {
            assert_eq!(moments.inputs(), cols, "inputs of {}", layer.name);
            let hessian = if is_centred { moments.covariance() } else { moments.second().to_vec() };
            groups.push(Group::new(index * per_group..(index + 1) * per_group, hessian, damping));
        }
        let mut target = layer.weights.to_vec();
        let mut gradient = vec![0.0; target.len()];
        let mut energy = 0.0;
        for group in &groups {
            let cells = group.cells(cols);
            group.scale_rows(&mut target[cells.clone()], cols, |weight, scale| weight * scale);
            let wide: Vec<f64> = target[cells.clone()].iter().map(|&value| f64::from(value)).collect();
            let own = Strided::packed(&wide, group.rows.len(), cols);
            add_product(
                1.0,
                own,
                Strided::packed(&group.hessian, cols, cols),
                &mut gradient[cells.clone()],
                cols.max(1),
            );
            energy += wide.iter().zip(&gradient[cells]).map(|(a, b)| a * b).sum::<f64>();
        }
        Self { rows, cols, groups, target, gradient, energy }
    }

    /// What the square of each weight costs the outputs, others unchanged: the damped diagonal of the Hessian, as a fraction of the
    /// outputs' energy; zeros where they have none.
    pub fn importances(&self) -> Importances {
        let share = if self.energy > 0.0 { 1.0 / self.energy } else { 0.0 };
        let of_group = |group: &Group| group.scale.iter().map(move |scale| scale * scale * share).collect::<Vec<_>>();
        Importances { rows: self.rows, cols: self.cols, of_inputs: self.groups.iter().flat_map(of_group).collect() }
    }

    /// The squared error of the outputs with `weights`, as a fraction of their energy; 0 where there is none.
    ///
    /// # Panics
    /// If `weights` are not as many as the layer's.
    pub fn relative_error(&self, weights: &[f32]) -> f64 {
        assert_eq!(weights.len(), self.target.len());
        let mut scaled = weights.to_vec();
        for group in &self.groups {
            group.scale_rows(&mut scaled[group.cells(self.cols)], self.cols, |weight, scale| weight * scale);
        }
        self.scaled_error(&scaled)
    }

    /// The same for weights that are scaled.
    pub(super) fn scaled_error(&self, scaled: &[f32]) -> f64 {
        let mut error = 0.0;
        for group in &self.groups {
            let cells = group.cells(self.cols);
            let cells_of = scaled[cells.clone()].iter().zip(&self.target[cells]);
            let difference: Vec<f64> = cells_of.map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
            let own = Strided::packed(&difference, group.rows.len(), self.cols);
            let through = product(own, Strided::packed(&group.hessian, self.cols, self.cols));
            error += difference.iter().zip(&through).map(|(a, b)| a * b).sum::<f64>();
        }
        if self.energy > 0.0 { (error / self.energy).max(0.0) } else { 0.0 }
    }

    /// For each group, the inverse of its Hessian plus `penalty`.
    pub(super) fn inverses(&self, penalty: f64, progress: &dyn Progress) -> Result<Vec<Vec<f32>>, CalibrateError> {
        let invert_group = |group: &Group| -> Result<Vec<f32>, CalibrateError> {
            let mut matrix = group.hessian.clone();
            (0..self.cols).for_each(|i| matrix[i * self.cols + i] += penalty);
            let inverse = invert(matrix, self.cols, progress)??;
            Ok(inverse.into_iter().map(|value| value as f32).collect())
        };
        self.groups.iter().map(invert_group).collect()
    }
}

impl Group {
    fn new(rows: Range<usize>, mut hessian: Vec<f64>, damping: f64) -> Self {
        let cols = hessian.len().isqrt();
        let diagonal = |hessian: &[f64], i: usize| hessian[i * cols + i].max(0.0);
        let mean = (0..cols).map(|i| diagonal(&hessian, i)).sum::<f64>() / cols.max(1) as f64;
        // Inputs that are always zero still need a scale.
        let added = if mean > 0.0 { damping * mean } else { 1.0 };
        let scale: Vec<f64> = (0..cols).map(|i| (diagonal(&hessian, i) + added).sqrt()).collect();
        hessian.par_chunks_mut(cols.max(1)).enumerate().for_each(|(i, row)| {
            row.iter_mut().zip(&scale).for_each(|(value, other)| *value /= scale[i] * other);
            row[i] = 1.0;
        });
        Self { rows, hessian, scale }
    }

    /// The cells of its rows.
    pub(super) fn cells(&self, cols: usize) -> Range<usize> {
        self.rows.start * cols..self.rows.end * cols
    }

    pub(super) fn scale_rows(&self, cells: &mut [f32], cols: usize, apply: impl Fn(f64, f64) -> f64 + Sync) {
        cells.par_chunks_mut(cols.max(1)).for_each(|row| {
            row.iter_mut().zip(&self.scale).for_each(|(value, &scale)| *value = apply(f64::from(*value), scale) as f32);
        });
    }
}
