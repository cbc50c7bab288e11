//! Gather of the rows of a compressed matrix: those that are asked for are expanded, each once, and copied from there.
//!
//! Tokens repeat, and an entry of an embedding is read more quickly than it is decoded. So the distinct rows of a call are
//! found first and laid out in a table, which tract's own Gather then reads; where no row repeats, and they are asked for in
//! order, the result is the table.

use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::ops::array::Gather;
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

use super::SharedWeight;
use super::indices::resolved;

/// A table of marks, one for each row, is quicker than sorting as long as it has at most this many for each index.
const MARKS_PER_INDEX: usize = 16;

/// A Gather along the first axis of a compressed weight, as an operator of tract: indices (integers) go in, entries (f32)
/// come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lookup {
    pub(crate) weight: SharedWeight,
    /// Of the weight, for errors.
    pub(crate) name: String,
    /// Extents of the weight behind the first one.
    pub(crate) entry: TVec<usize>,
}

impl Lookup {
    fn output_shape<D: DimLike>(&self, indices: &[D]) -> TVec<D> {
        indices.iter().cloned().chain(self.entry.iter().map(|&extent| D::from(extent))).collect()
    }

    /// Indices of `samples` samples with `positions` each, spread over all rows.
    pub(crate) fn example(&self, samples: usize, positions: usize) -> TValue {
        let rows = self.weight.outputs();
        let spread = |i: usize| (i.wrapping_mul(0x9E37_79B9) >> 7) % rows;
        let indices: Vec<i64> = (0..samples * positions).map(|i| spread(i) as i64).collect();
        Tensor::from_shape(&[samples, positions], &indices).expect("as many as the shape says").into_tvalue()
    }

    /// The entries that `indices` name.
    fn run(&self, context: &EvalContext, indices: &Tensor) -> TractResult<TVec<TValue>> {
        let indices_given = indices.try_as_plain_ram()?;
        let asked = resolved(indices_given.as_slice::<i64>()?, self.weight.outputs(), &self.name)?;
        if asked.is_sorted_by(|a, b| a < b) {
            return Ok(tvec![self.table(&asked, indices.shape())?]);
        }
        let Distinct { rows, places } = Distinct::of(&asked, self.weight.outputs());
        let places = Tensor::from_shape(indices.shape(), &places)?;
        Gather::new(0).eval(context, tvec![self.table(&rows, &[rows.len()])?, places.into_tvalue()])
    }

    /// The entries of `rows`, which rise and are as many as `extents` say.
    fn table(&self, rows: &[u32], extents: &[usize]) -> TractResult<TValue> {
        let mut table = Tensor::zero::<f32>(&self.output_shape(extents))?;
        self.weight.expand_rows(rows, table.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(table.into_tvalue())
    }
}

/// The distinct ones of some rows.
#[derive(Debug, PartialEq, Eq)]
struct Distinct {
    /// Rising.
    rows: Vec<u32>,
    /// Where each of all stands among them.
    places: Vec<i64>,
}

impl Distinct {
    /// Those of `asked`, which are below `count`.
    fn of(asked: &[u32], count: usize) -> Self {
        if count <= MARKS_PER_INDEX * asked.len() { Self::marked(asked, count) } else { Self::sorted(asked) }
    }

    fn marked(asked: &[u32], count: usize) -> Self {
        let mut marks = vec![0i64; count];
        asked.iter().for_each(|&row| marks[row as usize] = 1);
        let mut rows = Vec::with_capacity(count.min(asked.len()));
        for (row, mark) in (0..).zip(&mut marks).filter(|(_, mark)| **mark != 0) {
            *mark = rows.len() as i64;
            rows.push(row);
        }
        Self { rows, places: asked.iter().map(|&row| marks[row as usize]).collect() }
    }

    fn sorted(asked: &[u32]) -> Self {
        let mut rows = asked.to_vec();
        rows.sort_unstable();
        rows.dedup();
        let place = |row: &u32| rows.binary_search(row).expect("every row is among the distinct ones") as i64;
        let places = asked.iter().map(place).collect();
        Self { rows, places }
    }
}

impl Expansion for Lookup {
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
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.given(&inputs[0].shape, move |solver, shape| solver.equals(&outputs[0].shape, self.output_shape(&shape)))
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let indices = model.wire_node(format!("{prefix}.cast_to_i64"), cast(i64::datum_type()), inputs)?;
        model.wire_node(prefix, self.clone(), &indices)
    }
}

impl Op for Lookup {
    fn name(&self) -> StaticName {
        "CompressedLookup".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Lookup {
    // Never folded into a constant: it would be expanded.
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let indices = args_1!(inputs);
        self.run(context, &indices)
    }
}

impl TypedOp for Lookup {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs[0].datum_type == i64::datum_type(), "indices of type {:?}", inputs[0].datum_type);
        Ok(tvec![f32::fact(self.output_shape(&inputs[0].shape.to_tvec()))])
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Held;
    use super::*;
    use crate::codec::{self, CodecId, CompressedMatrix, Head};
    use crate::tensor::{FloatData, FloatType, Matrix};

    /// Entries 1 2, 3 4 and 5 6, a block each.
    fn lookup() -> Lookup {
        let values = FloatData::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let matrix = Matrix::raw(3, 2, FloatType::F32, values).unwrap();
        let payload = codec::encode(&matrix, CodecId::Dense, 1).unwrap();
        let matrix = CompressedMatrix::open(CodecId::Dense, Head::of(&matrix, 1).unwrap(), payload.into()).unwrap();
        let weight = SharedWeight::new(Held::Coded(Arc::new(matrix)), false).unwrap();
        Lookup { weight, name: "words".into(), entry: tvec![2] }
    }

    fn looked_up(indices: &[i64]) -> Result<Vec<f32>, String> {
        let indices = Tensor::from_shape(&[indices.len()], indices).unwrap();
        let found = lookup().run(&EvalContext::out_of_plan(), &indices).map_err(|error| error.to_string())?;
        assert_eq!(found[0].shape(), [indices.len(), 2]);
        Ok(found[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec())
    }

    #[test]
    fn rows_are_found_by_their_number_or_from_the_end() {
        for (indices, expected) in [
            (&[][..], vec![]),
            (&[1], vec![3., 4.]),
            (&[-1], vec![5., 6.]),
            (&[0, 2], vec![1., 2., 5., 6.]),
            (&[2, 0, -3, 2], vec![5., 6., 1., 2., 1., 2., 5., 6.]),
        ] {
            assert_eq!(looked_up(indices), Ok(expected), "{indices:?}");
        }
    }

    #[test]
    fn an_index_without_a_row_is_named() {
        for index in [3, -4, i64::MIN, i64::MAX, 1 << 32] {
            let message = format!("index {index} is outside the 3 entries of words");
            assert_eq!(looked_up(&[0, index, 1]), Err(message));
        }
    }

    #[test]
    fn distinct_rows_rise_however_they_are_found() {
        let asked = [7, 2, 7, 0, 9, 2];
        let expected = Distinct { rows: vec![0, 2, 7, 9], places: vec![2, 1, 2, 0, 3, 1] };
        assert_eq!(Distinct::marked(&asked, 10), expected);
        assert_eq!(Distinct::sorted(&asked), expected);
    }

    #[test]
    fn an_example_asks_for_rows_that_are_there() {
        let example = lookup().example(2, 5);
        let indices = example.try_as_plain_ram().unwrap().as_slice::<i64>().unwrap().to_vec();
        assert_eq!((example.shape(), indices.len()), (&[2, 5][..], 10));
        assert!(looked_up(&indices).is_ok());
        assert!((0..3).all(|row| indices.contains(&row)), "{indices:?}");
    }
}
