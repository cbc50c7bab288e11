//! MaxPool of one or two spatial axes: the maximum of whole lines first, then along the line.

use rayon::prelude::*;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cnn::PaddingSpec;

use super::View;
use super::parts::threads_for;

/// A max pool without dilation; attributes have one entry per spatial axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaxPool {
    /// Extents of a window, each at least 1.
    pub(crate) kernel: TVec<usize>,
    /// Each at least 1.
    pub(crate) strides: TVec<usize>,
    pub(crate) padding: PaddingSpec,
}

/// One spatial axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    input: usize,
    output: usize,
    window: usize,
    stride: usize,
    /// Outputs may look this far before the first input.
    pad: usize,
}

impl Axis {
    /// Inputs of the window of `output`.
    fn window(&self, output: usize) -> std::ops::Range<usize> {
        let start = output * self.stride;
        let inside = |at: usize| at.saturating_sub(self.pad).min(self.input);
        inside(start)..inside(start + self.window)
    }
}

impl MaxPool {
    fn output_shape<D: DimLike>(&self, input: &[D]) -> TractResult<TVec<D>> {
        let [samples, channels, spatial @ ..] = input else { bail!("a pool of rank {}", input.len()) };
        ensure!(spatial.len() == self.kernel.len(), "{} spatial axes, not {}", spatial.len(), self.kernel.len());
        let axes = spatial.iter().enumerate().map(|(axis, input)| {
            self.padding.compute_one(axis, input, self.kernel[axis], 1, self.strides[axis]).convoluted
        });
        Ok([samples.clone(), channels.clone()].into_iter().chain(axes).collect())
    }

    fn axis(&self, axis: usize, input: usize, output: usize) -> Axis {
        let (window, stride) = (self.kernel[axis], self.strides[axis]);
        let pad = self.padding.compute_one(axis, &input, window, 1, stride).pad_before;
        Axis { input, output, window, stride, pad }
    }

    /// Computes into the output, given as its shape and its elements.
    fn run(&self, x: View<'_>, (shape, out): (&[usize], &mut [f32])) {
        if out.is_empty() || x.data.is_empty() {
            out.fill(f32::NEG_INFINITY);
            return;
        }
        let rank = self.kernel.len();
        let along = self.axis(rank - 1, x.shape[rank + 1], shape[rank + 1]);
        let unit = Axis { input: 1, output: 1, window: 1, stride: 1, pad: 0 };
        let across = if rank == 2 { self.axis(0, x.shape[2], shape[2]) } else { unit };
        let inputs = across.input * along.input;
        let planes = out.par_chunks_mut(across.output * along.output).zip(x.data.par_chunks(inputs));
        let least = planes.len().div_ceil(threads_for(x.data.len()));
        planes.with_min_len(least).for_each_init(Vec::new, |line, (out, x)| pool_plane(x, across, along, line, out));
    }
}

/// `line` is a buffer for the maximum of some lines.
fn pool_plane(x: &[f32], across: Axis, along: Axis, line: &mut Vec<f32>, out: &mut [f32]) {
    // Outside the inputs nothing is larger than what is inside.
    let reach = ((along.output - 1) * along.stride + along.window).max(along.pad + along.input);
    for (row, out) in out.chunks_exact_mut(along.output).enumerate() {
        line.clear();
        line.resize(reach, f32::NEG_INFINITY);
        for at in across.window(row) {
            let x = &x[at * along.input..][..along.input];
            line[along.pad..][..x.len()].iter_mut().zip(x).for_each(|(max, x)| *max = larger(*max, *x));
        }
        match (along.window, along.stride) {
            (2, 2) => out.iter_mut().zip(line.as_chunks::<2>().0).for_each(|(out, [a, b])| *out = larger(*a, *b)),
            (window, stride) => {
                out.fill(f32::NEG_INFINITY);
                for tap in 0..window {
                    let taps = line[tap..].iter().step_by(stride);
                    out.iter_mut().zip(taps).for_each(|(max, x)| *max = larger(*max, *x));
                }
            }
        }
    }
}

/// The larger one; of a number and NaN, the second.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Expansion for MaxPool {
    fn name(&self) -> StaticName {
        Op::name(self)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, f32::datum_type())?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver
            .given(&inputs[0].shape, move |solver, shape| solver.equals(&outputs[0].shape, self.output_shape(&shape)?))
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for MaxPool {
    fn name(&self) -> StaticName {
        "MaxPoolOfLines".into()
    }

    op_as_typed_op!();
}

impl EvalOp for MaxPool {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let mut output = Tensor::zero::<f32>(&self.output_shape(input.shape())?)?;
        let shape: TVec<usize> = output.shape().into();
        self.run(View::of(&input)?, (&shape, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?));
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for MaxPool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![f32::fact(self.output_shape(&inputs[0].shape.to_tvec())?)])
    }

    as_op!();
}
