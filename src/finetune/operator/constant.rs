//! Constant, ConstantOfShape and Range.

use super::{Inputs, Kind, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::initializer;
use crate::finetune::node::Node;
use crate::finetune::value::{IntTensor, Tensor, Value, count, tensor_of, to_f64};

#[derive(Debug)]
struct Constant(Value);

#[derive(Debug)]
struct Filled(Value);

#[derive(Debug)]
struct Range;

/// Reads an operator of this file.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    match node.operator() {
        "Range" => return Ok(Box::new(Range)),
        "ConstantOfShape" => {
            let value = node.tensor("value").map(initializer::read).transpose()?;
            let zero = || Value::Float(Tensor::Plain(tensor_of(burn_backend::DType::F32, &[1], [0.0].into_iter())));
            return Ok(Box::new(Filled(value.unwrap_or_else(zero))));
        }
        _ => {}
    }
    if let Some(value) = node.constant {
        return Ok(Box::new(Constant(value.clone())));
    }
    let reals = |dims: &[usize], list: &[f32]| {
        let values = list.iter().map(|&value| f64::from(value));
        Value::Float(Tensor::Plain(tensor_of(burn_backend::DType::F32, dims, values)))
    };
    Ok(Box::new(Constant(if let Some(tensor) = node.tensor("value") {
        initializer::read(tensor)?
    } else if node.has("value_float") {
        reals(&[], &[node.float("value_float", 0.0) as f32])
    } else if let Some(list) = node.floats("value_floats") {
        reals(&[list.len()], list)
    } else if node.has("value_int") {
        Value::Int(IntTensor { dims: Vec::new(), data: vec![node.int("value_int", 0)].into() })
    } else if let Some(list) = node.ints("value_ints") {
        Value::Int(IntTensor::list(list.to_vec()))
    } else {
        return Err(node.missing("value"));
    })))
}

impl Operator for Constant {
    fn run(&self, _: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![self.0.clone()])
    }

    fn kind(&self, _: &[Kind]) -> Kind {
        kind(&self.0)
    }
}

impl Operator for Filled {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let shape = &inputs.int(0)?.data;
        if let Some(&found) = shape.iter().find(|&&dim| dim < 0) {
            return Err(OperatorError::Range { what: "an extent", found });
        }
        let dims: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
        let total = count(&dims)?;
        Ok(vec![match &self.0 {
            Value::Int(value) => Value::Int(IntTensor { data: vec![value.scalar()?; total].into(), dims }),
            Value::Float(value) => {
                let values = to_f64(value.inner());
                let &[value] = &values[..] else {
                    return Err(OperatorError::WrongLength { expected: 1, found: values.len() });
                };
                let filled = std::iter::repeat_n(value, total);
                Value::Float(Tensor::Plain(tensor_of(burn_backend::DType::F32, &dims, filled)))
            }
        }])
    }

    fn kind(&self, _: &[Kind]) -> Kind {
        kind(&self.0)
    }
}

impl Operator for Range {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let (start, limit, step) = (inputs.int(0)?.scalar()?, inputs.int(1)?.scalar()?, inputs.int(2)?.scalar()?);
        if step == 0 {
            return Err(OperatorError::Range { what: "a step", found: 0 });
        }
        let span = i128::from(limit) - i128::from(start);
        let entries = usize::try_from((span + i128::from(step) - i128::from(step.signum())) / i128::from(step));
        let entries = entries.unwrap_or(0);
        count(&[entries])?;
        Ok(vec![Value::Int(IntTensor::list((0..entries as i64).map(|i| start + i * step).collect()))])
    }
}

/// What `value` holds.
pub(in crate::finetune) fn kind(value: &Value) -> Kind {
    match value {
        Value::Float(_) => Kind::Float,
        Value::Int(_) => Kind::Int,
    }
}
