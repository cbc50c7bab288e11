//! Products with a weight: what a row sums where all of its inputs that count are known.

use tract_onnx::pb::GraphProto;

use super::{Known, MAX_USES, Walk};
use crate::model::{Use, Weight};
use crate::tensor::{Layout, Matrix};
use crate::units::value::Node;

/// A node that multiplies a value by a weight.
#[derive(Clone, Copy)]
pub(in crate::units) struct Product<'a> {
    pub node: Node<'a>,
    pub weight: &'a Weight,
    pub usage: &'a Use,
}

impl<'a> Product<'a> {
    /// `None` where the node does not multiply, or does not have the inputs that it should.
    pub(super) fn of(graph: &'a GraphProto, weight: &'a Weight, usage: &'a Use) -> Option<Self> {
        let node = graph.node.get(usage.node)?;
        let multiplies = matches!(node.op_type.as_str(), "Gemm" | "MatMul" | "Conv" | "ConvTranspose");
        let fits =
            multiplies && usage.slot < 2 && node.input.len() >= 2 && node.output.len() == 1 && weight.dims.len() >= 2;
        fits.then_some(Self { node: Node(node), weight, usage })
    }

    fn op(&self) -> &'a str {
        &self.node.0.op_type
    }

    /// The value that is multiplied by the weight.
    pub(in crate::units) fn input(&self) -> &'a str {
        &self.node.0.input[1 - self.usage.slot]
    }

    /// The axis of that value, of `rank`, that is summed over.
    pub(in crate::units) fn summed_axis(&self, rank: usize) -> Option<usize> {
        let flag = |name: &str| usize::from(self.node.int(name, 0) != 0);
        match (self.op(), self.usage.slot) {
            ("Gemm", 1) => Some(1 - flag("transA")),
            ("Gemm", _) => Some(flag("transB")),
            ("MatMul", slot) => rank.checked_sub(2 - slot),
            _ => Some(1),
        }
    }

    /// The axis of the weight that is summed over.
    pub(in crate::units) fn weight_axis(&self) -> usize {
        self.weight.summed_axis(self.usage)
    }

    /// The axis of the output that has a position for each of [`Product::outputs`]; `None` where an output is more, or less, than
    /// a sum over all inputs and a bias.
    fn output_axis(&self, rank: usize) -> Option<usize> {
        match (self.op(), self.usage.slot) {
            ("Gemm", 1) => Some(1),
            ("MatMul", 1) => rank.checked_sub(1),
            ("Conv", 1) if !self.usage.transposed && self.weight.layout == Layout::RowsFirst => Some(1),
            _ => None,
        }
    }

    /// Whether an output is a sum over all inputs: a bias can take what some of them always add.
    pub(in crate::units) fn is_sum(&self) -> bool {
        self.output_axis(2).is_some() && !self.is_padded()
    }

    /// Whether some outputs may leave inputs out, at a border.
    fn is_padded(&self) -> bool {
        let pads = self.node.ints("pads").is_some_and(|pads| pads.iter().any(|&pad| pad != 0));
        self.op() == "Conv" && (pads || !matches!(self.node.text("auto_pad"), b"" | b"NOTSET" | b"VALID"))
    }

    /// How many sums there are.
    pub(in crate::units) fn outputs(&self) -> usize {
        self.weight.dims[1 - self.weight_axis()]
    }

    /// Factor of the sum.
    pub(in crate::units) fn alpha(&self) -> f64 {
        if self.op() == "Gemm" { self.node.float("alpha", 1.0) } else { 1.0 }
    }

    /// Factor of the bias.
    pub(in crate::units) fn beta(&self) -> f64 {
        if self.op() == "Gemm" { self.node.float("beta", 1.0) } else { 1.0 }
    }

    fn groups(&self) -> usize {
        usize::try_from(self.node.int("group", 1)).unwrap_or(1).max(1)
    }

    /// Calls `term` with output, input and weight for every cell of the weight that is not zero.
    pub(in crate::units) fn each_term(&self, matrix: &Matrix, mut term: impl FnMut(usize, usize, f64)) {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let kernel = self.weight.dims[2..].iter().product::<usize>().max(1);
        let groups = if self.op() == "Conv" { self.groups() } else { 1 };
        let (rows_of_group, inputs_of_group) = ((rows / groups).max(1), cols / kernel);
        for row in 0..rows {
            for col in 0..cols {
                let weight = matrix.value(row * cols + col);
                if weight != 0.0 {
                    let input = row / rows_of_group * inputs_of_group + col / kernel;
                    let (output, input) = if self.usage.transposed { (col, row) } else { (row, input) };
                    term(output, input, weight);
                }
            }
        }
    }

    /// Inputs of all groups.
    fn inputs(&self) -> usize {
        let groups = if self.op() == "Conv" { self.groups() } else { 1 };
        self.weight.dims[self.weight_axis()].saturating_mul(groups)
    }

    /// Those of `known` that are the same for every output, where they are along the axis that is summed over.
    fn constant_inputs(&self, known: Option<&Known>, rank: Option<usize>) -> Option<Vec<Option<f64>>> {
        let fits = |known: &&Known| {
            rank.and_then(|rank| self.summed_axis(rank)) == Some(known.axis) && known.values.len() == self.inputs()
        };
        let is_padded = self.is_padded();
        let same = |value: &Option<f64>| value.filter(|&value| value == 0.0 || !is_padded);
        known.filter(fits).map(|known| known.values.iter().map(same).collect())
    }
}

impl<'a, E> Walk<'_, 'a, E> {
    /// A row is constant where it has no weight but for constant inputs.
    pub(super) fn product(&mut self, index: usize, node: Node<'a>) -> Result<Option<Known>, E> {
        let Some(product) = self.facts.products.get(&index).copied() else { return Ok(None) };
        let rank = self.facts.extents.get(node.0.output[0].as_str()).map(Vec::len);
        let Some((axis, rank)) = rank.and_then(|rank| Some((product.output_axis(rank)?, rank))) else {
            return Ok(None);
        };
        let outputs = product.outputs();
        if product.weight.uses.len() > MAX_USES || !self.afford(outputs) {
            return Ok(None);
        }
        let bias = match node.0.input.get(2).filter(|name| !name.is_empty()) {
            // The one axis of a convolution's bias is that of its channels.
            Some(name) if node.0.op_type == "Conv" => self.vector(name, (0, 1), outputs)?,
            Some(name) => self.vector(name, (axis, rank), outputs)?,
            None => Some(vec![0.0; outputs]),
        };
        let (Some(bias), Some(matrix)) = (bias, (self.load)(&product.weight.name)?) else { return Ok(None) };
        let slot = 1 - product.usage.slot;
        let inputs = product.constant_inputs(self.input(node, slot), self.extents(node, slot).map(<[_]>::len));
        let mut sums = vec![Some(0.0); outputs];
        product.each_term(&matrix, |output, input, weight| {
            let value = inputs.as_ref().and_then(|inputs| inputs[input]);
            sums[output] = sums[output].zip(value).map(|(sum, value)| sum + weight * value);
        });
        let (alpha, beta) = (product.alpha(), product.beta());
        let value = |(sum, bias): (Option<f64>, f64)| sum.map(|sum| alpha * sum + beta * bias);
        Ok(Some(Known::new(axis, sums.into_iter().zip(bias).map(value).collect())))
    }

    /// A column of an embedding is constant where all its cells are the same.
    pub(super) fn gather(&mut self, node: Node<'a>) -> Result<Option<Known>, E> {
        let weight = node.0.input.first().and_then(|name| self.facts.weight(name));
        let is_small = |weight: &&Weight| weight.dims.len() == 2 && weight.uses.len() <= MAX_USES;
        let Some(weight) = weight.filter(is_small).filter(|_| node.int("axis", 0) == 0) else {
            return Ok(None);
        };
        let rank = self.facts.extents.get(node.0.output[0].as_str()).map(Vec::len);
        let (Some(axis), true) = (rank.and_then(|rank| rank.checked_sub(1)), self.afford(weight.dims[1])) else {
            return Ok(None);
        };
        let Some(matrix) = (self.load)(&weight.name)? else { return Ok(None) };
        let cells = |column: usize| {
            let cell = move |row: usize| match weight.layout {
                Layout::RowsFirst => row * matrix_cols(weight) + column,
                _ => column * matrix_cols(weight) + row,
            };
            (0..weight.dims[0]).map(cell)
        };
        let value = |column: usize| {
            let first = cells(column).next().map(|cell| matrix.value(cell))?;
            cells(column).all(|cell| matrix.value(cell) == first).then_some(first)
        };
        Ok(Some(Known::new(axis, (0..weight.dims[1]).map(value).collect())))
    }
}

/// Columns of the matrix of a weight of two axes.
fn matrix_cols(weight: &Weight) -> usize {
    if weight.layout == Layout::RowsFirst { weight.dims[1] } else { weight.dims[0] }
}
