//! Indices of a Gather, checked against the entries that there are; those below zero count from the end.
//!
//! tract's own Gather takes indices as they are. In front of one that reads a constant stands [`CheckedIndices`], so that a wrong
//! index is an error that names it, whatever form the constant is held in.

use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

/// Passes indices on, as numbers from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckedIndices {
    /// Entries along the axis that is looked up.
    pub(crate) rows: usize,
    /// Of the constant, for errors.
    pub(crate) name: String,
}

/// An index that a Gather has no entry for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("index {index} is outside the {rows} entries of {name}")]
pub(crate) struct OutOfRange {
    pub(crate) index: i64,
    pub(crate) rows: usize,
    /// Of the weight.
    pub(crate) name: String,
}

/// The rows that `indices` mean, of as many as `rows`.
///
/// # Errors
/// [`OutOfRange`] with the first index that means none.
pub(super) fn resolved(indices: &[i64], rows: usize, name: &str) -> Result<Vec<u32>, OutOfRange> {
    let row = |&index: &i64| {
        let row = if index < 0 { index.checked_add_unsigned(rows as u64) } else { Some(index) };
        let row = row.and_then(|row| u32::try_from(row).ok()).filter(|&row| (row as usize) < rows);
        row.ok_or_else(|| OutOfRange { index, rows, name: name.to_owned() })
    };
    indices.iter().map(row).collect()
}

impl Expansion for CheckedIndices {
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
        solver.equals(&outputs[0].datum_type, i64::datum_type())?;
        solver.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let indices = model.wire_node(format!("{prefix}.cast_to_i64"), cast(i64::datum_type()), inputs)?;
        model.wire_node(prefix, self.clone(), &indices)
    }
}

impl Op for CheckedIndices {
    fn name(&self) -> StaticName {
        "CheckedIndices".into()
    }

    op_as_typed_op!();
}

impl EvalOp for CheckedIndices {
    op_out_of_plan!();

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let indices = args_1!(inputs);
        let rows = resolved(indices.try_as_plain_ram()?.as_slice::<i64>()?, self.rows, &self.name)?;
        let rows: Vec<i64> = rows.into_iter().map(i64::from).collect();
        Ok(tvec![Tensor::from_shape(indices.shape(), &rows)?.into_tvalue()])
    }
}

impl TypedOp for CheckedIndices {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![i64::fact(inputs[0].shape.to_tvec())])
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_either_end_and_not_beyond() {
        assert_eq!(resolved(&[0, 2, -1, -3], 3, "words"), Ok(vec![0, 2, 2, 0]));
        for index in [3, -4, i64::MIN, i64::MAX, 1 << 32] {
            let error = OutOfRange { index, rows: 3, name: "words".into() };
            assert_eq!(resolved(&[1, index], 3, "words"), Err(error));
        }
    }
}
