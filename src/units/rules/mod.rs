//! What each operator does to the units of its inputs: one rule per operator, a file per kind.
//!
//! A rule holds where the operator commutes with every permutation that its ties leave free. It returns the outputs, or `None`
//! where it cannot tell; then nothing that the node reads may move.

mod arithmetic;
mod product;
mod shape;
mod window;

use std::collections::HashSet;

use super::families::{Families, Segment};
use super::value::{Axis, Node, Number, Value};

/// The state of the walk that rules change.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub families: Families,
    /// Axes of constants that a product sums over.
    pub summed: HashSet<(usize, usize)>,
    symbols: u32,
}

/// The inputs of a node; `None` where an optional one is left out.
pub(super) type Inputs<'a> = [Option<&'a Value>];

impl Rules {
    /// The outputs of `node`, in order; `None` where no rule covers it.
    pub(super) fn apply(&mut self, node: Node, inputs: &Inputs) -> Option<Vec<Value>> {
        match node.0.op_type.as_str() {
            "Identity" | "Cast" | "Dropout" | "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "Elu" | "Selu" | "Celu"
            | "Gelu" | "Erf" | "Exp" | "Log" | "Sqrt" | "Neg" | "Abs" | "Reciprocal" | "Floor" | "Ceil" | "Round"
            | "Sign" | "Sin" | "Cos" | "Atan" | "Softplus" | "Softsign" | "HardSigmoid" | "HardSwish" | "Mish"
            | "ThresholdedRelu" | "Not" | "Clip" => arithmetic::unary(node, inputs),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Min" | "Max" | "Mean" | "Sum" | "PRelu" | "Where"
            | "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Xor" => {
                arithmetic::broadcast(self, inputs)
            }
            "BatchNormalization" | "InstanceNormalization" => arithmetic::per_channel(self, node, inputs),
            "LayerNormalization" => arithmetic::layer_normalization(self, node, inputs),
            "Softmax" | "LogSoftmax" => arithmetic::softmax(self, inputs),
            "Gemm" => product::gemm(self, node, inputs),
            "MatMul" => product::matmul(self, inputs),
            "Conv" => product::convolution(self, node, inputs),
            "ConvTranspose" => product::transposed_convolution(self, node, inputs),
            "MaxPool" | "AveragePool" | "LpPool" => window::pool(self, node, inputs),
            "GlobalMaxPool" | "GlobalAveragePool" | "GlobalLpPool" => window::global_pool(self, inputs),
            "Pad" => window::pad(self, node, inputs),
            "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceSum" | "ReduceProd" | "ReduceL1" | "ReduceL2"
            | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => window::reduce(self, node, inputs),
            "Flatten" => shape::flatten(self, node, inputs),
            "Reshape" => shape::reshape(self, node, inputs),
            "Transpose" => shape::transpose(node, inputs),
            "Squeeze" => shape::squeeze(node, inputs),
            "Unsqueeze" => shape::unsqueeze(node, inputs),
            "Concat" => shape::concat(self, node, inputs),
            "Split" => shape::split(self, node, inputs),
            "Slice" => shape::slice(self, inputs),
            "Gather" => shape::gather(self, node, inputs),
            "Shape" => shape::shape(self, node, inputs),
            _ => None,
        }
    }

    /// A number that is not known.
    pub(super) fn unknown(&mut self) -> Number {
        self.symbols += 1;
        Number::Symbol(self.symbols)
    }

    /// Lets the positions of two axes move only together; returns the axis that is known better.
    fn tie(&mut self, a: &Axis, b: &Axis) -> Axis {
        match (a.units.is_empty(), b.units.is_empty()) {
            (false, false) => self.families.tie(&a.units, &b.units),
            (false, true) => self.pin(a, "tied to positions that stay where they are"),
            (true, false) => self.pin(b, "tied to positions that stay where they are"),
            (true, true) => {}
        }
        let better = if a.len().is_some() { a } else { b };
        better.clone()
    }

    /// Forbids the positions of `axis` to move.
    pub(super) fn pin(&mut self, axis: &Axis, reason: &str) {
        self.families.pin(&axis.units, reason);
    }

    /// Forbids units along `axis` to be taken away.
    fn hold_size(&mut self, axis: &Axis, reason: &str) {
        self.families.hold_size(&axis.units, reason);
    }

    /// The segments of an axis of known length; where its positions do not move, segments that say so.
    fn segments(&mut self, axis: &Axis) -> Option<Vec<Segment>> {
        let len = axis.len()?;
        Some(match axis.units.is_empty() && len > 0 {
            true => self.families.pinned_axis(len, "positions that stay where they are").to_vec(),
            false => axis.units.to_vec(),
        })
    }
}

/// The axes of input `index`; `None` where it is left out or of unknown rank.
fn axes<'a>(inputs: &Inputs<'a>, index: usize) -> Option<&'a [Axis]> {
    inputs.get(index).copied().flatten()?.axes.as_deref()
}

/// The integers of input `index`.
fn integers(inputs: &Inputs, index: usize) -> Option<Vec<i64>> {
    inputs.get(index).copied().flatten()?.integers()
}

/// Whether input `index` is there.
fn is_given(inputs: &Inputs, index: usize) -> bool {
    inputs.get(index).is_some_and(Option::is_some)
}
