//! The tensors of a `.safetensors` file: its header alone is read, by the format's own crate.

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::arrays::{ArrayEntry, Body};
use super::element::{ElementType, element_count};
use super::error::ModelError;
use super::source::Source;

/// A header of this size describes half a million tensors.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// The length of the header, in front of it.
const LENGTH_BYTES: u64 = 8;

/// Reads and checks the header.
pub(super) fn entries(source: &Source) -> Result<Vec<ArrayEntry>, ModelError> {
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    let left = source.len() - LENGTH_BYTES;
    if length > left {
        return Err(ModelError::Truncated { offset: LENGTH_BYTES, needed: length, found: left });
    }
    if length > MAX_HEADER_BYTES {
        return Err(ModelError::HeaderTooLarge { found: length, max: MAX_HEADER_BYTES });
    }
    let mut header = vec![0; length as usize];
    source.read_exact_at(&mut header, LENGTH_BYTES)?;
    // Offsets are checked here: contiguous from 0, each as long as its shape says.
    let metadata: Metadata = serde_json::from_slice(&header)?;
    let start = LENGTH_BYTES + length;
    let (needed, found) = (metadata.data_len() as u64, source.len() - start);
    if needed != found {
        return Err(ModelError::Truncated { offset: start, needed, found });
    }
    metadata.offset_keys().into_iter().map(|name| entry(&metadata, name, start)).collect()
}

fn entry(metadata: &Metadata, name: String, start: u64) -> Result<ArrayEntry, ModelError> {
    let info = metadata.info(&name).ok_or_else(|| ModelError::UnknownTensor { name: name.clone() })?;
    let Some(element) = element(info.dtype) else {
        return Err(ModelError::ElementName { tensor: name, found: info.dtype.to_string() });
    };
    let (from, to) = info.data_offsets;
    let range = start + from as u64..start + to as u64;
    let size_bytes = range.end - range.start;
    let body = Body::Plain(range);
    let dims = info.shape.clone();
    if element_count(&dims).is_none() {
        return Err(ModelError::Overflow { tensor: name, dims: dims.iter().map(|&d| d as u64).collect() });
    }
    Ok(ArrayEntry { name, dims, element, size_bytes, column_major: false, big_endian: false, body })
}

fn element(dtype: Dtype) -> Option<&'static ElementType> {
    ElementType::from_name(match dtype {
        Dtype::BOOL => "bool",
        Dtype::F4 => "float4e2m1",
        Dtype::U8 => "uint8",
        Dtype::I8 => "int8",
        Dtype::F8_E5M2 => "float8e5m2",
        Dtype::F8_E4M3 => "float8e4m3fn",
        Dtype::F8_E8M0 => "float8e8m0",
        Dtype::F8_E4M3FNUZ => "float8e4m3fnuz",
        Dtype::F8_E5M2FNUZ => "float8e5m2fnuz",
        Dtype::I16 => "int16",
        Dtype::U16 => "uint16",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::I32 => "int32",
        Dtype::U32 => "uint32",
        Dtype::F32 => "float32",
        Dtype::C64 => "complex64",
        Dtype::F64 => "float64",
        Dtype::I64 => "int64",
        Dtype::U64 => "uint64",
        _ => return None,
    })
}
