//! Export to plain safetensors: the stored tensors, and the small constants that the graph still holds.

use std::io::Write;

use tract_onnx::pb;

use super::super::onnx_name;
use super::onnx::holds_data;
use super::{Artifact, ArtifactError, Body, StoredTensor, by_name, plain_bytes, write_values};
use crate::model::constants_mut;
use crate::model::{DataField, ElementType, element_count, shape_of};

/// One entry of the file.
struct Entry<'a> {
    name: String,
    dims: Vec<usize>,
    dtype: &'static str,
    /// Bits of an element: entries with wider elements come first, which keeps all of them aligned.
    bits: u64,
    data: Data<'a>,
}

enum Data<'a> {
    Stored(&'a StoredTensor),
    Inline(Vec<u8>),
}

pub(super) fn write(artifact: &Artifact, out: &mut dyn Write) -> Result<(), ArtifactError> {
    let mut entries = artifact.tensors().iter().map(stored_entry).collect::<Result<Vec<_>, _>>()?;
    let stored = by_name(artifact);
    if let Some(mut model) = artifact.graph()? {
        let constants = constants_mut(&mut model).filter(|(name, _)| !stored.contains_key(name.as_str()));
        entries.extend(constants.filter_map(|(name, tensor)| inline_entry(name, tensor)));
    }
    entries.sort_by(|a, b| b.bits.cmp(&a.bits).then_with(|| a.name.cmp(&b.name)));
    entries.dedup_by(|a, b| a.name == b.name);

    let header = header(&entries);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for entry in &entries {
        match &entry.data {
            Data::Stored(tensor) => write_values(artifact, tensor, out)?,
            Data::Inline(bytes) => out.write_all(bytes)?,
        }
    }
    Ok(())
}

fn stored_entry(tensor: &StoredTensor) -> Result<Entry<'_>, ArtifactError> {
    let name = match &tensor.body {
        Body::Encoded { dtype, .. } => onnx_name(*dtype),
        Body::Plain { dtype, .. } => dtype,
    };
    let element = ElementType::from_name(name).and_then(|t| Some((safetensors_name(t, &tensor.dims)?, t.bits)));
    let unknown = || ArtifactError::Unrepresentable { tensor: tensor.name.clone(), dtype: name.to_owned() };
    let (dtype, bits) = element.ok_or_else(unknown)?;
    Ok(Entry { name: tensor.name.clone(), dims: tensor.dims.clone(), dtype, bits, data: Data::Stored(tensor) })
}

/// A constant of a fixed-size type; strings and packed integers, which are no weights, have no place in the file.
fn inline_entry<'a>(name: String, tensor: &pb::TensorProto) -> Option<Entry<'a>> {
    let (dims, element) = shape_of(tensor)?;
    let dtype = safetensors_name(element, &dims)?;
    let bytes = if holds_data(tensor) { inline_bytes(tensor, element) } else { Vec::new() };
    let whole = element.size_bytes(dims.iter().product())? == bytes.len() as u64;
    whole.then_some(Entry { name, dims, dtype, bits: element.bits, data: Data::Inline(bytes) })
}

/// The elements of a constant as `raw_data` would hold them, whichever field they are in.
fn inline_bytes(tensor: &pb::TensorProto, element: &ElementType) -> Vec<u8> {
    if !tensor.raw_data.is_empty() {
        return tensor.raw_data.clone();
    }
    // Each number holds two elements of 4 bits.
    let size = (element.bits / 8).max(1) as usize;
    match element.field {
        DataField::Float => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataField::Double => tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataField::Int64 => tensor.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DataField::Int32 => tensor.int32_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(size)).collect(),
        DataField::Uint64 => tensor.uint64_data.iter().flat_map(|v| v.to_le_bytes().into_iter().take(size)).collect(),
        DataField::String => Vec::new(),
    }
}

/// Safetensors' name of a type, where it has one and a tensor of these dims ends on a whole byte.
fn safetensors_name(element: &ElementType, dims: &[usize]) -> Option<&'static str> {
    let is_whole = |elements: usize| (elements as u64).saturating_mul(element.bits).is_multiple_of(8);
    element_count(dims).filter(|&elements| is_whole(elements))?;
    Some(match element.name {
        "float64" => "F64",
        "float32" => "F32",
        "float16" => "F16",
        "bfloat16" => "BF16",
        "float8e4m3fn" => "F8_E4M3",
        "float8e5m2" => "F8_E5M2",
        "float8e8m0" => "F8_E8M0",
        "float8e4m3fnuz" => "F8_E4M3FNUZ",
        "float8e5m2fnuz" => "F8_E5M2FNUZ",
        "float4e2m1" => "F4",
        "complex64" => "C64",
        "int64" => "I64",
        "int32" => "I32",
        "int16" => "I16",
        "int8" => "I8",
        "uint64" => "U64",
        "uint32" => "U32",
        "uint16" => "U16",
        "uint8" => "U8",
        "bool" => "BOOL",
        _ => return None,
    })
}

fn header(entries: &[Entry]) -> Vec<u8> {
    let mut header = String::from("{");
    let mut start = 0;
    for (i, Entry { name, dims, dtype, data, .. }) in entries.iter().enumerate() {
        let end = start
            + match data {
                Data::Stored(tensor) => plain_bytes(tensor),
                Data::Inline(bytes) => bytes.len() as u64,
            };
        let (comma, name) = (if i > 0 { "," } else { "" }, serde_json::Value::from(name.as_str()));
        header.push_str(&format!(
            r#"{comma}{name}:{{"dtype":"{dtype}","shape":{dims:?},"data_offsets":[{start},{end}]}}"#
        ));
        start = end;
    }
    header.push('}');
    // Other readers map the file: keep the data aligned.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    header.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_are_imported_can_be_exported() {
        let name = |name, dims: &[usize]| safetensors_name(ElementType::from_name(name).unwrap(), dims);
        for (onnx, expected) in [
            ("float4e2m1", "F4"),
            ("float8e4m3fnuz", "F8_E4M3FNUZ"),
            ("float8e5m2fnuz", "F8_E5M2FNUZ"),
            ("float8e8m0", "F8_E8M0"),
        ] {
            assert_eq!(name(onnx, &[3, 2]), Some(expected));
        }
        assert_eq!(name("float4e2m1", &[3]), None, "a half byte is left");
        assert_eq!(name("string", &[2]), None);
    }
}
