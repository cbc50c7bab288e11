//! A normalisation by fixed statistics as an operator of ours, so that a run layer by layer can stop at it.

use tract_onnx::tract_hir::internal::*;

/// ONNX's epsilon where a node gives none.
pub(crate) const NORMALIZATION_EPSILON: f32 = 1e-5;

/// BatchNormalization as it is used for predictions: inputs are the activation, scale, shift, mean and variance, all f32, the
/// channels along the activation's second axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Normalization {
    /// The constants that hold the statistics, which nothing else reads.
    pub(crate) mean: String,
    pub(crate) variance: String,
    pub(crate) epsilon: f32,
}

// As of `ProductOp`: the float is an attribute.
impl Eq for Normalization {}

impl Expansion for Normalization {
    fn name(&self) -> StaticName {
        Op::name(self)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 5)?;
        check_output_arity(outputs, 1)?;
        for tensor in inputs.iter().chain(outputs) {
            solver.equals(&tensor.datum_type, f32::datum_type())?;
        }
        solver.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Normalization {
    fn name(&self) -> StaticName {
        "Normalization".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Normalization {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(inputs.len() == 5, "a normalisation has five inputs, not {}", inputs.len());
        let mut output = inputs[0].clone().into_tensor();
        let (channels, area) = channels(output.shape())?;
        let parameter = |slot: usize| -> TractResult<&[f32]> {
            let values = inputs[slot].try_as_plain_ram()?.as_slice::<f32>()?;
            ensure!(values.len() == channels, "{} values for {channels} channels", values.len());
            Ok(values)
        };
        let (scale, shift, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        let mut plain = output.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<f32>()?;
        for (part, values) in values.chunks_mut(area.max(1)).enumerate() {
            let channel = part % channels;
            let factor = scale[channel] / (variance[channel] + self.epsilon).sqrt();
            let rest = shift[channel] - mean[channel] * factor;
            values.iter_mut().for_each(|value| *value = *value * factor + rest);
        }
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for Normalization {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![f32::fact(inputs[0].shape.to_tvec())])
    }

    as_op!();
}

/// Channels of an activation, and the values that follow each other in one.
///
/// # Errors
/// Where it has no second axis.
pub(crate) fn channels(shape: &[usize]) -> TractResult<(usize, usize)> {
    match shape {
        [_, channels, rest @ ..] if *channels > 0 => Ok((*channels, rest.iter().product())),
        _ => bail!("a normalisation needs channels, and found the shape {shape:?}"),
    }
}
