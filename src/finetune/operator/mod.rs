//! The operators: each read from its node once, then applied to values of any extents.
//!
//! An operator that no library function covers is a kernel's output with a rule for its gradients (`tape::record`).

use std::fmt::Debug;

use super::error::{OperatorError, TuneError};
use super::node::Node;
use super::value::{IntTensor, Tensor, Value};

mod binary;
mod constant;
mod convolution;
mod integer;
mod linear;
mod normalize;
mod pool;
mod reduce;
mod resize;
mod shape;
mod softmax;
mod take;
mod unary;
mod window;

pub(super) use constant::kind;

/// What a node does.
pub(super) trait Operator: Debug + Send + Sync {
    /// The outputs, as many as the node may have.
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError>;

    /// What the outputs hold, given what the inputs do.
    fn kind(&self, inputs: &[Kind]) -> Kind {
        inputs.first().copied().unwrap_or(Kind::Float)
    }

    /// How many of the leading inputs gradients pass through; others are fixed numbers, such as the statistics of a norm.
    fn differentiable(&self) -> usize {
        usize::MAX
    }

    /// Whether this is a softmax, or its logarithm, whose input are logits of classes on the last axis.
    fn is_softmax(&self) -> bool {
        false
    }
}

/// What a value holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int,
}

/// The inputs of a node; absent ones are optional inputs that it leaves out.
pub(super) struct Inputs<'a>(pub &'a [Option<Value>]);

impl Inputs<'_> {
    /// Input `index`.
    pub fn value(&self, index: usize) -> Result<&Value, OperatorError> {
        self.optional(index).ok_or(OperatorError::MissingInput { index })
    }

    /// Input `index`, if the node has it.
    pub fn optional(&self, index: usize) -> Option<&Value> {
        self.0.get(index)?.as_ref()
    }

    /// Input `index`, which holds reals.
    pub fn float(&self, index: usize) -> Result<&Tensor, OperatorError> {
        self.value(index)?.float()
    }

    /// Input `index`, which holds integers.
    pub fn int(&self, index: usize) -> Result<&IntTensor, OperatorError> {
        self.value(index)?.int()
    }

    /// The integers of input `index`, if the node has it.
    pub fn ints(&self, index: usize) -> Result<Option<Vec<i64>>, OperatorError> {
        self.optional(index).map(|value| Ok(value.int()?.data.to_vec())).transpose()
    }
}

/// Reads the operator of a node.
///
/// # Errors
/// [`TuneError::UnsupportedOperator`], and those of attributes.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    match node.operator() {
        "Conv" => convolution::parse(node),
        "ConvTranspose" => convolution::parse_transposed(node),
        "Gemm" | "MatMul" => linear::parse(node),
        "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" => pool::parse(node),
        "BatchNormalization" | "LayerNormalization" | "InstanceNormalization" => normalize::parse(node),
        "Softmax" | "LogSoftmax" => softmax::parse(node),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" | "PRelu" | "Where" | "Equal" | "Less"
        | "Greater" | "Mod" => binary::parse(node),
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare"
        | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceProd" => reduce::parse(node),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Concat" | "Identity" | "Dropout" | "Cast"
        | "Shape" => shape::parse(node),
        "Gather" | "Slice" | "Split" | "Pad" | "Expand" | "Tile" => take::parse(node),
        "Resize" | "Upsample" => resize::parse(node),
        "Constant" | "ConstantOfShape" | "Range" => constant::parse(node),
        _ => unary::parse(node),
    }
}

/// The place of `axis`, which counts from the end where negative.
fn axis(axis: i64, rank: usize) -> Result<usize, OperatorError> {
    let place = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(place).ok().filter(|&place| place < rank).ok_or(OperatorError::Axis { axis, rank })
}

/// The places of `axes`.
fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, OperatorError> {
    list.iter().map(|&one| axis(one, rank)).collect()
}
