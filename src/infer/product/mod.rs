//! The operators that use a compressed weight, inside tract's graph.
//!
//! tract sees one operator, [`ProductOp`]: an activation and an optional bias go in, the result comes out, and the
//! weight stays as it is encoded. What differs between operators is the [`Kernel`]. A [`Lookup`] takes rows of a weight
//! instead of multiplying by it.

mod columns;
mod convolution;
mod direct;
mod indices;
mod linear;
mod lookup;
mod normalization;
mod parts;
mod pool;
mod weight;
mod window;

use tract_onnx::tract_hir::internal::*;

pub(crate) use convolution::{Convolution, Direction};
pub(crate) use indices::{CheckedIndices, OutOfRange};
pub(crate) use linear::Linear;
pub(crate) use lookup::Lookup;
pub(crate) use normalization::{NORMALIZATION_EPSILON, Normalization, channels};
pub(crate) use pool::MaxPool;
pub(crate) use weight::{Held, SharedWeight};

use crate::kernel::axpy::Epilogue;

/// How an activation meets the weight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kernel {
    /// Gemm and MatMul.
    Linear(Linear),
    /// Conv and ConvTranspose.
    Convolution(Box<Convolution>),
}

impl Kernel {
    /// Shape of the output for an activation of shape `input`; dimensions may be symbols.
    fn output_shape<D: DimLike>(&self, input: &[D]) -> TractResult<TVec<D>> {
        match self {
            Self::Linear(linear) => linear.output_shape(input),
            Self::Convolution(convolution) => convolution.output_shape(input),
        }
    }
}

impl Kernel {
    /// An activation of `samples` samples; extents that only the graph knows are such that a sample has some hundred
    /// positions.
    pub(crate) fn example(&self, samples: usize) -> TValue {
        let shape: TVec<usize> = match self {
            Self::Linear(linear) if linear.features_last => tvec![samples, linear.weight.inputs()],
            Self::Linear(linear) => tvec![linear.weight.inputs(), samples],
            Self::Convolution(convolution) => convolution.example_shape(samples),
        };
        let mut tensor = Tensor::zero::<f32>(&shape).expect("f32 has a zero");
        if let Ok(mut plain) = tensor.try_as_plain_ram_mut()
            && let Ok(values) = plain.as_slice_mut::<f32>()
        {
            values.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 17) as f32 / 16.0);
        }
        tensor.into_tvalue()
    }
}

/// Bounds of the result: those of an absorbed Relu or Clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Bounds {
    pub(crate) const NONE: Self = Self { low: f32::NEG_INFINITY, high: f32::INFINITY };

    /// What is left to do with a sum: a bias, then these bounds.
    fn after(self, bias: f32) -> Epilogue {
        Epilogue { bias, low: self.low, high: self.high }
    }

    fn apply(self, out: &mut [f32]) {
        if self != Self::NONE {
            let epilogue = self.after(0.0);
            out.iter_mut().for_each(|value| *value = epilogue.clip(*value));
        }
    }
}

/// A compressed product as an operator of tract: inputs are the activation (f32) and, where the kernel has one, the
/// bias (f32).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProductOp {
    pub(crate) kernel: Kernel,
    pub(crate) bounds: Bounds,
}

// tract asks for `Eq` to merge equal operators; the floats inside (Gemm's alpha and beta, bounds) are attributes, never NaN
// that matters: an operator that does not equal itself is merely not merged.
impl Eq for ProductOp {}

impl Expansion for ProductOp {
    fn name(&self) -> StaticName {
        Op::name(self)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        for tensor in inputs.iter().chain(outputs) {
            solver.equals(&tensor.datum_type, f32::datum_type())?;
        }
        solver.given(&inputs[0].shape, move |solver, shape| {
            solver.equals(&outputs[0].shape, self.kernel.output_shape(&shape)?)
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for ProductOp {
    fn name(&self) -> StaticName {
        match &self.kernel {
            Kernel::Linear(_) => "CompressedLinear".into(),
            Kernel::Convolution(_) => "CompressedConvolution".into(),
        }
    }

    fn validation(&self) -> Validation {
        Validation::Rounding
    }

    op_as_typed_op!();
}

impl EvalOp for ProductOp {
    // A product is never folded into a constant: its result may be as large as the weight it spares.
    not_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(matches!(inputs.len(), 1 | 2), "a product has one or two inputs, not {}", inputs.len());
        let mut output = Tensor::zero::<f32>(&self.kernel.output_shape(inputs[0].shape())?)?;
        let x = View::of(&inputs[0])?;
        let bias = inputs.get(1).map(View::of).transpose()?;
        let shape: TVec<usize> = output.shape().into();
        let mut plain = output.try_as_plain_ram_mut()?;
        let out = plain.as_slice_mut::<f32>()?;
        match &self.kernel {
            Kernel::Linear(linear) => linear.run(x, bias, self.bounds, out)?,
            Kernel::Convolution(convolution) => convolution.run(x, bias, self.bounds, (&shape, out))?,
        }
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for ProductOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![f32::fact(self.kernel.output_shape(&inputs[0].shape.to_tvec())?)])
    }

    as_op!();
}

/// A tensor of f32 as its shape and its elements.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    shape: &'a [usize],
    data: &'a [f32],
}

impl<'a> View<'a> {
    fn of(tensor: &'a TValue) -> TractResult<Self> {
        let tensor: &Tensor = tensor;
        let data = tensor.try_as_plain_ram()?.as_slice::<f32>()?;
        Ok(Self { shape: tensor.shape(), data })
    }
}
