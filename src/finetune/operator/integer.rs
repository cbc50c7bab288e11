//! Arithmetic on integers: the shapes that graphs compute as they run.

use super::OperatorError;
use super::binary::{Binary, broadcast};
use crate::finetune::value::{IntTensor, count};

/// Applies `operator` element by element, with broadcasting; conditions are 0 and 1.
pub(super) fn apply(operator: Binary, a: &IntTensor, b: &IntTensor) -> Result<IntTensor, OperatorError> {
    let dims = broadcast(&a.dims, &b.dims)?;
    let (a, b) = (expand(a, &dims)?, expand(b, &dims)?);
    let data = a.data.iter().zip(b.data.iter()).map(|(&a, &b)| {
        Ok(match operator {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::Div | Binary::Mod if b == 0 => {
                return Err(OperatorError::Range { what: "a divisor", found: 0 });
            }
            Binary::Div => a.wrapping_div(b),
            Binary::Mod => a.wrapping_rem_euclid(b),
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
            Binary::Equal => i64::from(a == b),
            Binary::Less => i64::from(a < b),
            Binary::Greater => i64::from(a > b),
            Binary::Pow | Binary::PRelu => {
                return Err(OperatorError::WrongType { expected: "reals", found: "integers" });
            }
        })
    });
    let data: Vec<i64> = data.collect::<Result<_, _>>()?;
    Ok(IntTensor { dims, data: data.into() })
}

/// The elements of `a` where `condition` is not 0, else those of `b`.
pub(super) fn choose(condition: &IntTensor, a: &IntTensor, b: &IntTensor) -> Result<IntTensor, OperatorError> {
    let dims = broadcast(&broadcast(&condition.dims, &a.dims)?, &b.dims)?;
    let (condition, a, b) = (expand(condition, &dims)?, expand(a, &dims)?, expand(b, &dims)?);
    let pairs = a.data.iter().zip(b.data.iter());
    let data: Vec<i64> = condition.data.iter().zip(pairs).map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect();
    Ok(IntTensor { dims, data: data.into() })
}

/// The tensor repeated along axes of extent 1, and new leading ones, to fill `dims`, to which it broadcasts.
pub(super) fn expand(tensor: &IntTensor, dims: &[usize]) -> Result<IntTensor, OperatorError> {
    if tensor.dims == dims {
        return Ok(tensor.clone());
    }
    let total = count(dims)?;
    let own = [vec![1; dims.len().saturating_sub(tensor.dims.len())], tensor.dims.clone()].concat();
    let mut data = Vec::with_capacity(total);
    for place in 0..total {
        let (mut rest, mut at, mut stride) = (place, 0, 1);
        for (&extent, &dim) in own.iter().zip(dims).rev() {
            at += if extent == 1 { 0 } else { rest % dim * stride };
            (rest, stride) = (rest / dim, stride * extent);
        }
        data.push(tensor.data[at]);
    }
    Ok(IntTensor { dims: dims.to_vec(), data: data.into() })
}
