//! What flows along the edges of a graph: tensors of reals, tracked where a gradient is wanted, and of integers.

use std::sync::Arc;

use burn_autodiff::Autodiff;
use burn_backend::backend::{AutodiffBackend, BackendTypes};
use burn_backend::{DType, Shape, TensorMetadata};
use burn_flex::{Flex, FlexTensor};

use super::error::OperatorError;
use super::scalar::{Scalar, by_type};

/// The backend that keeps a tape of what it computes.
pub(super) type Tape = Autodiff<Flex>;
/// A tensor on the tape.
pub(super) type Traced = <Tape as BackendTypes>::FloatTensorPrimitive;

/// Values of more elements than this are refused: no graph that is trained here needs them.
const MAX_ELEMENTS: usize = 1 << 31;

/// Applies a function of the backend to tensors: on the tape where one of them is traced, without it otherwise.
macro_rules! on_tape {
    ($function:ident($a:expr $(; $($more:expr),*)?)) => {
        match $a {
            $crate::finetune::value::Tensor::Plain(a) => {
                $crate::finetune::value::Tensor::Plain(<Flex as burn_backend::ops::FloatTensorOps<Flex>>::$function(a $($(, $more)*)?))
            }
            $crate::finetune::value::Tensor::Traced(a) => {
                $crate::finetune::value::Tensor::Traced(<Tape as burn_backend::ops::FloatTensorOps<Tape>>::$function(a $($(, $more)*)?))
            }
        }
    };
    ($function:ident($a:expr, $b:expr)) => {
        match ($a, $b) {
            ($crate::finetune::value::Tensor::Plain(a), $crate::finetune::value::Tensor::Plain(b)) => {
                $crate::finetune::value::Tensor::Plain(<Flex as burn_backend::ops::FloatTensorOps<Flex>>::$function(a, b))
            }
            (a, b) => {
                $crate::finetune::value::Tensor::Traced(<Tape as burn_backend::ops::FloatTensorOps<Tape>>::$function(a.traced(), b.traced()))
            }
        }
    };
}
pub(super) use on_tape;

/// A value of a graph.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Float(Tensor),
    Int(IntTensor),
}

/// A tensor of reals. Plain ones leave no trace, so evaluation keeps no memory.
#[derive(Debug, Clone)]
pub(super) enum Tensor {
    Plain(FlexTensor),
    Traced(Traced),
}

/// A tensor of integers: indices, shapes, conditions (0 and 1).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct IntTensor {
    /// Extents, outermost first.
    pub dims: Vec<usize>,
    /// Row-major; as many as the product of `dims`.
    pub data: Arc<[i64]>,
}

impl Value {
    /// Extents, outermost first.
    pub fn dims(&self) -> Vec<usize> {
        match self {
            Self::Float(tensor) => tensor.dims(),
            Self::Int(tensor) => tensor.dims.clone(),
        }
    }

    /// The tensor of reals that this is.
    pub fn float(&self) -> Result<&Tensor, OperatorError> {
        match self {
            Self::Float(tensor) => Ok(tensor),
            Self::Int(_) => Err(OperatorError::WrongType { expected: "reals", found: "integers" }),
        }
    }

    /// The tensor of integers that this is.
    pub fn int(&self) -> Result<&IntTensor, OperatorError> {
        match self {
            Self::Int(tensor) => Ok(tensor),
            Self::Float(_) => Err(OperatorError::WrongType { expected: "integers", found: "reals" }),
        }
    }
}

impl Tensor {
    /// A tensor on which a gradient is asked for.
    pub fn leaf(tensor: FlexTensor) -> Self {
        Self::Traced(Tape::from_inner(tensor).require_grad())
    }

    /// The numbers without the trace.
    pub fn inner(&self) -> &FlexTensor {
        match self {
            Self::Plain(tensor) => tensor,
            Self::Traced(tensor) => tensor.primitive(),
        }
    }

    /// The numbers, contiguous.
    pub fn contiguous(&self) -> FlexTensor {
        self.inner().to_contiguous()
    }

    /// Extents, outermost first.
    pub fn dims(&self) -> Vec<usize> {
        self.inner().shape().to_vec()
    }

    /// On the tape, though perhaps without a gradient.
    pub fn traced(self) -> Traced {
        match self {
            Self::Plain(tensor) => Tape::from_inner(tensor),
            Self::Traced(tensor) => tensor,
        }
    }

    /// The same numbers with these extents, which hold as many.
    pub fn reshape(self, dims: &[usize]) -> Self {
        if self.inner().shape().as_slice() == dims {
            return self;
        }
        let shape = Shape::from(dims.to_vec());
        on_tape!(float_reshape(self; shape))
    }

    /// The axes in another order.
    pub fn permute(self, axes: &[usize]) -> Self {
        on_tape!(float_permute(self; axes))
    }
}

impl IntTensor {
    /// A list.
    pub fn list(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], data: values.into() }
    }

    /// The one number in this.
    pub fn scalar(&self) -> Result<i64, OperatorError> {
        match self.data[..] {
            [value] => Ok(value),
            _ => Err(OperatorError::WrongLength { expected: 1, found: self.data.len() }),
        }
    }
}

/// The number of elements of `dims`.
///
/// # Errors
/// [`OperatorError::TooLarge`] beyond what a value may hold.
pub(super) fn count(dims: &[usize]) -> Result<usize, OperatorError> {
    let count = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    count.filter(|&count| count <= MAX_ELEMENTS).ok_or_else(|| OperatorError::TooLarge { dims: dims.to_vec() })
}

/// A tensor of `dims` of the numbers `values` in the element type `dtype`.
pub(super) fn tensor_of(dtype: DType, dims: &[usize], values: impl Iterator<Item = f64>) -> FlexTensor {
    match dtype {
        DType::F64 => f64::tensor(dims, values.collect()),
        _ => f32::tensor(dims, values.map(|value| value as f32).collect()),
    }
}

/// The elements as f64.
pub(super) fn to_f64(tensor: &FlexTensor) -> Vec<f64> {
    let tensor = tensor.to_contiguous();
    by_type!(tensor, T => T::view(&tensor).iter().map(|value| value.f64()).collect())
}
