//! Gemm and MatMul with a compressed side.
//!
//! Products take samples side by side (features x samples) and return units x samples. ONNX has the features last as a
//! rule, so the activation is turned on the way in and the result on the way out; a single sample needs neither.
//!
//! A sparse weight is walked once for a tile of samples, and each part of the result is turned while it is in cache.
//! A weight of few zeros, or one that is used the other way round, is multiplied as a whole.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;
use tract_onnx::tract_hir::internal::*;

use super::parts::{for_each_part, threads_for, with_staged};
use super::weight::Rows;
use super::{Bounds, SharedWeight, View};
use crate::kernel::axpy::{Planes, Strided};

/// Samples that one walk over a compressed matrix multiplies by.
const TILE_SAMPLES: usize = 256;

/// Samples of a tile in which rows are walked: as many as the kernel holds in registers.
const WALK_SAMPLES: usize = 96;

/// A matrix product with one compressed side.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Linear {
    pub(crate) weight: SharedWeight,
    /// The activation is (..., samples, features), not (..., features, samples).
    pub(crate) features_last: bool,
    /// The result is (..., samples, units), not (..., units, samples): the weight stands on the right.
    pub(crate) units_last: bool,
    /// Gemm's factor of the product; 1 for MatMul.
    pub(crate) alpha: f32,
    /// Gemm's factor of the bias, which broadcasts to the result.
    pub(crate) beta: f32,
}

impl Linear {
    pub(super) fn output_shape<D: DimLike>(&self, input: &[D]) -> TractResult<TVec<D>> {
        let (features, units) = (self.weight.inputs(), D::from(self.weight.outputs()));
        let (lead, found, samples) = match input {
            [] => bail!("a matrix product of a scalar"),
            [features] => (&[][..], features, None),
            [lead @ .., samples, features] if self.features_last => (lead, features, Some(samples)),
            [lead @ .., features, samples] => (lead, features, Some(samples)),
        };
        // A symbol may still turn out right; numbers must agree now.
        if found.as_usize().is_some_and(|found| found != features) {
            bail!("the weight has {features} inputs, the activation {found}");
        }
        let mut output: TVec<D> = lead.into();
        match samples {
            None => output.push(units),
            Some(samples) if self.units_last => output.extend([samples.clone(), units]),
            Some(samples) => output.extend([units, samples.clone()]),
        }
        Ok(output)
    }

    /// Computes into `out`, which has [`Linear::output_shape`].
    pub(super) fn run(&self, x: View<'_>, bias: Option<View<'_>>, bounds: Bounds, out: &mut [f32]) -> TractResult<()> {
        let (features, units) = (self.weight.inputs(), self.weight.outputs());
        let samples = match x.shape {
            [.., samples, _] if self.features_last => *samples,
            [.., _, samples] => *samples,
            _ => 1,
        };
        let lead: usize = x.shape.iter().rev().skip(2).product();
        let batch = lead * samples;
        ensure!(x.data.len() == features * batch, "the activation does not have {features} features");
        if out.is_empty() {
            return Ok(());
        }

        let (rows, columns) = if self.units_last { (batch, units) } else { (units, samples) };
        if batch > 1 && self.weight.walks_rows() {
            // A bias of each unit and bounds are the kernel's work, unless Gemm scales the product before.
            let absorbs = self.alpha == 1.0 && bias.is_none_or(|bias| self.is_per_unit(bias.shape));
            let (bias_of_units, kept) = if absorbs { (bias, bounds) } else { (None, Bounds::NONE) };
            let product = Tiles { linear: self, bias: bias_of_units.map(|bias| bias.data), bounds: kept };
            self.weight.for_each_rows(|rows| product.run(rows, x.data, (lead, samples), out));
            return if absorbs { Ok(()) } else { self.finish(bias, bounds, (rows, columns), out) };
        }
        if self.features_last && self.units_last {
            // Samples are rows on both sides, so they can be shared out, a walk's worth a task.
            let tiles = out.par_chunks_mut(TILE_SAMPLES * units).zip(x.data.par_chunks(TILE_SAMPLES * features));
            tiles.for_each(|(out, x)| self.multiply_rows(x, out));
        } else {
            self.multiply_turned(x.data, (lead, samples), out);
        }
        self.finish(bias, bounds, (rows, columns), out)
    }

    /// Samples x features in, samples x units out.
    fn multiply_rows(&self, x: &[f32], out: &mut [f32]) {
        let samples = x.len() / self.weight.inputs();
        if samples == 1 {
            return self.weight.multiply(x, 1, out);
        }
        let mut product = vec![0.0; out.len()];
        self.weight.multiply(&transposed(x, self.weight.inputs()), samples, &mut product);
        transpose_into(&product, samples, out);
    }

    /// Where the weight stands on the left, or Gemm turns a side.
    fn multiply_turned(&self, x: &[f32], (lead, samples): (usize, usize), out: &mut [f32]) {
        let (features, units, batch) = (self.weight.inputs(), self.weight.outputs(), lead * samples);
        let input = match (self.features_last, lead) {
            _ if batch == 1 => Cow::Borrowed(x),
            (true, _) => Cow::Owned(transposed(x, features)),
            (false, 1) => Cow::Borrowed(x),
            (false, _) => Cow::Owned(swapped(x, (lead, features, samples))),
        };
        if batch == 1 || (!self.units_last && lead == 1) {
            return self.weight.multiply(&input, batch, out);
        }
        let mut product = vec![0.0; units * batch];
        self.weight.multiply(&input, batch, &mut product);
        if self.units_last {
            transpose_into(&product, batch, out);
        } else {
            out.copy_from_slice(&swapped(&product, (units, lead, samples)));
        }
    }

    /// Whether a Gemm bias of this shape has one value for each unit.
    pub(crate) fn is_per_unit(&self, shape: &[usize]) -> bool {
        let units = self.weight.outputs();
        match *shape {
            [n] | [1, n] if self.units_last => n == units,
            [n, 1] if !self.units_last => n == units,
            _ => false,
        }
    }

    /// `out = alpha out + beta bias` within bounds, the bias broadcast to rows x columns.
    fn finish(
        &self,
        bias: Option<View<'_>>,
        bounds: Bounds,
        shape: (usize, usize),
        out: &mut [f32],
    ) -> TractResult<()> {
        self.scale_and_add(bias, shape, out)?;
        bounds.apply(out);
        Ok(())
    }

    fn scale_and_add(
        &self,
        bias: Option<View<'_>>,
        (rows, columns): (usize, usize),
        out: &mut [f32],
    ) -> TractResult<()> {
        if self.alpha != 1.0 {
            out.iter_mut().for_each(|v| *v *= self.alpha);
        }
        let Some(bias) = bias else { return Ok(()) };
        let (bias_rows, bias_columns) = match *bias.shape {
            [] => (1, 1),
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => bail!("a Gemm bias of rank {}", bias.shape.len()),
        };
        ensure!(
            (bias_rows == rows || bias_rows == 1) && (bias_columns == columns || bias_columns == 1),
            "a bias of {bias_rows} x {bias_columns} does not broadcast to {rows} x {columns}"
        );
        for (row, out) in out.chunks_exact_mut(columns).enumerate() {
            let start = if bias_rows == 1 { 0 } else { row * bias_columns };
            let bias = &bias.data[start..start + bias_columns];
            match bias {
                [one] => out.iter_mut().for_each(|v| *v += self.beta * one),
                _ => out.iter_mut().zip(bias).for_each(|(v, b)| *v += self.beta * b),
            }
        }
        Ok(())
    }
}

/// A product with several samples, a tile of them at a time.
struct Tiles<'a> {
    linear: &'a Linear,
    /// One of each unit, before Gemm's factor.
    bias: Option<&'a [f32]>,
    bounds: Bounds,
}

impl Tiles<'_> {
    /// Computes the units `rows` of all samples.
    fn run(&self, rows: &Rows, x: &[f32], (lead, samples): (usize, usize), out: &mut [f32]) {
        let Linear { weight, features_last, units_last, .. } = self.linear;
        let (features, units) = (weight.inputs(), weight.outputs());
        // Where both sides have the samples as rows, those of all leading dimensions are of one matrix.
        let (lead, samples) = if *features_last && *units_last { (1, lead * samples) } else { (lead, samples) };
        let count = samples.div_ceil(samples.div_ceil(WALK_SAMPLES));
        for item in 0..lead {
            let x = &x[item * features * samples..][..features * samples];
            let out = &mut out[item * units * samples..][..units * samples];
            for first in (0..samples).step_by(count) {
                let count = count.min(samples - first);
                if *features_last {
                    with_staged(|staged| {
                        staged.resize(features * count, 0.0);
                        turn(&x[first * features..][..features * count], features, staged, count);
                        self.run_tile(rows, (staged, count, 0), first..first + count, out);
                    });
                } else {
                    self.run_tile(rows, (x, samples, first), first..first + count, out);
                }
            }
        }
    }

    /// `tile` of the samples: the activation is features x `stride`, and the tile begins with its column `first`. `out` is
    /// of all samples.
    fn run_tile(&self, rows: &Rows, (x, stride, first): (&[f32], usize, usize), tile: Range<usize>, out: &mut [f32]) {
        let Linear { weight, beta, units_last, .. } = self.linear;
        let (features, units, count) = (weight.inputs(), weight.outputs(), tile.len());
        let planes = Planes::new(x, Strided { columns: features, stride }, stride);
        let sum = |unit: usize, sums: &mut [f32]| {
            let bias = self.bias.map_or(0.0, |bias| beta * bias[unit]);
            rows.sum(unit, planes, first, self.bounds.after(bias), sums);
        };
        let threads = threads_for(weight.visited_cells().saturating_mul(count));
        let samples = out.len() / units;
        for_each_part(rows.range(), count, threads, sum, |part, sums| {
            if *units_last {
                turn(sums, count, &mut out[tile.start * units + part.start..], units);
            } else {
                for (unit, sums) in part.zip(sums.chunks_exact(count)) {
                    out[unit * samples + tile.start..][..count].copy_from_slice(sums);
                }
            }
        });
    }
}

/// Writes the transpose of a matrix with `columns` columns to `out`, where rows begin `stride` floats apart.
pub(super) fn turn(matrix: &[f32], columns: usize, out: &mut [f32], stride: usize) {
    /// Rows and columns of a block: a cache line each.
    const BLOCK: usize = 16;
    let rows = matrix.len() / columns;
    for top in (0..rows).step_by(BLOCK) {
        let height = BLOCK.min(rows - top);
        for left in (0..columns).step_by(BLOCK) {
            for column in left..columns.min(left + BLOCK) {
                let out = &mut out[column * stride + top..][..height];
                let cells = matrix[top * columns + column..].iter().step_by(columns);
                out.iter_mut().zip(cells).for_each(|(out, cell)| *out = *cell);
            }
        }
    }
}

/// The transpose of a matrix with `columns` columns.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; matrix.len()];
    transpose_into(matrix, columns, &mut out);
    out
}

/// Writes the transpose of a matrix with `columns` columns to `out`.
fn transpose_into(matrix: &[f32], columns: usize, out: &mut [f32]) {
    /// Columns turned at a time: one cache line of every row.
    const STRIPE: usize = 16;
    let rows = matrix.len() / columns.max(1);
    if rows == 0 {
        return;
    }
    out.par_chunks_mut(STRIPE * rows).with_min_len(4).enumerate().for_each(|(stripe, out)| {
        let first = stripe * STRIPE;
        let width = out.len() / rows;
        for (row, values) in matrix.chunks_exact(columns).enumerate() {
            for (i, value) in values[first..first + width].iter().enumerate() {
                out[i * rows + row] = *value;
            }
        }
    });
}

/// An (a, b, c) tensor as (b, a, c).
fn swapped(tensor: &[f32], (a, b, c): (usize, usize, usize)) -> Vec<f32> {
    let mut out = Vec::with_capacity(tensor.len());
    for j in 0..b {
        for i in 0..a {
            out.extend_from_slice(&tensor[(i * b + j) * c..][..c]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_turns_every_cell() {
        assert_eq!(transposed(&[1., 2., 3., 4., 5., 6.], 3), [1., 4., 2., 5., 3., 6.]);
        let wide: Vec<f32> = (0..35 * 70).map(|i| i as f32).collect();
        assert_eq!(transposed(&transposed(&wide, 70), 35), wide);
    }

    #[test]
    fn swapping_moves_whole_rows() {
        assert_eq!(swapped(&[1., 2., 3., 4., 5., 6., 7., 8.], (2, 2, 2)), [1., 2., 5., 6., 3., 4., 7., 8.]);
    }
}
