//! Constant tensors of an ONNX file as values: reals in f32, everything else as 64-bit integers.

use half::{bf16, f16};
use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType as T;

use super::error::TuneError;
use super::scalar::Scalar;
use super::value::{IntTensor, Tensor, Value, tensor_of};
use crate::infer::{Array, ArrayData};

/// Reads a tensor that holds its own data.
///
/// # Errors
/// [`TuneError::UnsupportedType`]; [`TuneError::ElementCount`] where the data do not fill the dimensions.
pub(super) fn read(tensor: &TensorProto) -> Result<Value, TuneError> {
    let name = || tensor.name.clone();
    let kind = T::try_from(tensor.data_type).unwrap_or(T::Undefined);
    let raw = &tensor.raw_data[..];
    let has_raw = !raw.is_empty();
    let short = |values: &[i32]| values.iter().map(|&bits| bits as u16).collect::<Vec<_>>();
    let reals: Option<Vec<f32>> = match kind {
        T::Float if has_raw => Some(words(raw, f32::from_le_bytes)),
        T::Float => Some(tensor.float_data.clone()),
        T::Double if has_raw => Some(words(raw, |word| f64::from_le_bytes(word) as f32)),
        T::Double => Some(tensor.double_data.iter().map(|&value| value as f32).collect()),
        T::Float16 if has_raw => Some(words(raw, |word| f16::from_le_bytes(word).to_f32())),
        T::Float16 => Some(short(&tensor.int32_data).into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()),
        T::Bfloat16 if has_raw => Some(words(raw, |word| bf16::from_le_bytes(word).to_f32())),
        T::Bfloat16 => Some(short(&tensor.int32_data).into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()),
        _ => None,
    };
    let dims = checked_dims(tensor, reals.as_ref().map(Vec::len))?;
    if let Some(reals) = reals {
        return Ok(Value::Float(Tensor::Plain(f32::tensor(&dims, reals))));
    }
    let small = || tensor.int32_data.iter().map(|&value| i64::from(value)).collect();
    let data: Vec<i64> = match kind {
        T::Int64 if has_raw => words(raw, i64::from_le_bytes),
        T::Int64 => tensor.int64_data.clone(),
        T::Int32 if has_raw => words(raw, |word| i64::from(i32::from_le_bytes(word))),
        T::Uint32 if has_raw => words(raw, |word| i64::from(u32::from_le_bytes(word))),
        T::Int16 if has_raw => words(raw, |word| i64::from(i16::from_le_bytes(word))),
        T::Uint16 if has_raw => words(raw, |word| i64::from(u16::from_le_bytes(word))),
        T::Int8 if has_raw => words(raw, |word| i64::from(i8::from_le_bytes(word))),
        T::Uint8 | T::Bool if has_raw => raw.iter().map(|&byte| i64::from(byte)).collect(),
        T::Int32 | T::Int16 | T::Uint16 | T::Int8 | T::Uint8 | T::Bool => small(),
        T::Uint64 if has_raw => words(raw, |word| u64::from_le_bytes(word) as i64),
        T::Uint64 | T::Uint32 => tensor.uint64_data.iter().map(|&value| value as i64).collect(),
        _ => return Err(TuneError::UnsupportedType { name: name(), code: tensor.data_type }),
    };
    checked_dims(tensor, Some(data.len()))?;
    Ok(Value::Int(IntTensor { dims, data: data.into() }))
}

/// An array as a value; reals in f32.
///
/// # Errors
/// [`TuneError::ElementCount`] where the data do not fill the dimensions.
pub(super) fn from_array(name: &str, array: Array) -> Result<Value, TuneError> {
    let Array { dims, data } = array;
    let expected = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    if expected != Some(data.len()) {
        let (name, found) = (name.to_owned(), data.len());
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        return Err(TuneError::ElementCount { name, dims, expected: expected.unwrap_or(usize::MAX) as u64, found });
    }
    Ok(match data {
        ArrayData::F32(values) => Value::Float(Tensor::Plain(f32::tensor(&dims, values))),
        ArrayData::F64(_) | ArrayData::F16(_) | ArrayData::Bf16(_) => {
            let values = (0..data.len()).map(|i| data.get_f64(i));
            Value::Float(Tensor::Plain(tensor_of(burn_backend::DType::F32, &dims, values)))
        }
        ArrayData::I64(values) => Value::Int(IntTensor { dims, data: values.into() }),
        data => {
            let values = (0..data.len()).map(|i| data.get_f64(i) as i64).collect();
            Value::Int(IntTensor { dims, data: values })
        }
    })
}

/// The dimensions, which hold `found` elements; not checked where the type has not been seen yet.
fn checked_dims(tensor: &TensorProto, found: Option<usize>) -> Result<Vec<usize>, TuneError> {
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let product = |dims: &Vec<usize>| dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let expected = dims.as_ref().and_then(product);
    match (dims, expected) {
        (Some(dims), Some(expected)) if found.is_none_or(|found| found == expected) => Ok(dims),
        (_, expected) => Err(TuneError::ElementCount {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            expected: expected.unwrap_or(usize::MAX) as u64,
            found: found.unwrap_or(0),
        }),
    }
}

fn words<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (words, _) = raw.as_chunks::<N>();
    words.iter().map(|&word| read(word)).collect()
}
