//! Element types of tensors, as ONNX numbers and stores them; NumPy's and safetensors' map onto the same names.
//!
//! # Source
//! `TensorProto.DataType` in `onnx.proto`, and the comments on its data fields.

use tract_onnx::pb::TensorProto;

use crate::tensor::FloatType;

/// One element type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ElementType {
    /// ONNX / NumPy name in lower case.
    pub name: &'static str,
    /// Open Inference Protocol name; `None` where the protocol has none.
    pub datatype: Option<&'static str>,
    /// Bits of one element; 0 for strings, which have no fixed size.
    pub bits: u64,
    /// The field that holds the elements when `raw_data` does not.
    pub field: DataField,
}

/// The typed data fields of a TensorProto, by field number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum DataField {
    Float = 4,
    Int32 = 5,
    String = 6,
    Int64 = 7,
    Double = 10,
    Uint64 = 11,
}

const fn row(name: &'static str, datatype: Option<&'static str>, bits: u64, field: DataField) -> ElementType {
    ElementType { name, datatype, bits, field }
}

/// Row `i` is ONNX type `i + 1`.
static ELEMENT_TYPES: [ElementType; 26] = [
    row("float32", Some("FP32"), 32, DataField::Float),
    row("uint8", Some("UINT8"), 8, DataField::Int32),
    row("int8", Some("INT8"), 8, DataField::Int32),
    row("uint16", Some("UINT16"), 16, DataField::Int32),
    row("int16", Some("INT16"), 16, DataField::Int32),
    row("int32", Some("INT32"), 32, DataField::Int32),
    row("int64", Some("INT64"), 64, DataField::Int64),
    row("string", Some("BYTES"), 0, DataField::String),
    row("bool", Some("BOOL"), 8, DataField::Int32),
    row("float16", Some("FP16"), 16, DataField::Int32),
    row("float64", Some("FP64"), 64, DataField::Double),
    row("uint32", Some("UINT32"), 32, DataField::Uint64),
    row("uint64", Some("UINT64"), 64, DataField::Uint64),
    row("complex64", None, 64, DataField::Float),
    row("complex128", None, 128, DataField::Double),
    row("bfloat16", Some("BF16"), 16, DataField::Int32),
    row("float8e4m3fn", None, 8, DataField::Int32),
    row("float8e4m3fnuz", None, 8, DataField::Int32),
    row("float8e5m2", None, 8, DataField::Int32),
    row("float8e5m2fnuz", None, 8, DataField::Int32),
    row("uint4", None, 4, DataField::Int32),
    row("int4", None, 4, DataField::Int32),
    row("float4e2m1", None, 4, DataField::Int32),
    row("float8e8m0", None, 8, DataField::Int32),
    row("uint2", None, 2, DataField::Int32),
    row("int2", None, 2, DataField::Int32),
];

impl ElementType {
    /// The type that ONNX numbers `code`.
    pub(crate) fn from_onnx(code: i64) -> Option<&'static Self> {
        ELEMENT_TYPES.get(usize::try_from(code).ok()?.checked_sub(1)?)
    }

    /// The type of this name.
    pub(crate) fn from_name(name: &str) -> Option<&'static Self> {
        ELEMENT_TYPES.iter().find(|t| t.name == name)
    }

    /// The float type, where a tensor of it can be compressed.
    pub(crate) fn float(&self) -> Option<FloatType> {
        match self.name {
            "float16" => Some(FloatType::F16),
            "bfloat16" => Some(FloatType::Bf16),
            "float32" => Some(FloatType::F32),
            "float64" => Some(FloatType::F64),
            _ => None,
        }
    }

    /// Bytes of `elements` as `raw_data` holds them: packed, the last byte padded. `None` on overflow.
    pub(crate) fn size_bytes(&self, elements: usize) -> Option<u64> {
        Some((elements as u64).checked_mul(self.bits)?.div_ceil(8))
    }
}

/// Dims of a tensor whose structure was checked, and its element type; `None` if they make no sense.
pub(crate) fn shape_of(tensor: &TensorProto) -> Option<(Vec<usize>, &'static ElementType)> {
    let dims = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>()?;
    element_count(&dims)?;
    Some((dims, ElementType::from_onnx(i64::from(tensor.data_type))?))
}

/// Product of `dims`; `None` on overflow, which a dimension of 0 does not hide.
pub(crate) fn element_count(dims: &[usize]) -> Option<usize> {
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)))?;
    Some(if dims.contains(&0) { 0 } else { count })
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::tensor_proto::DataType;

    use super::*;

    #[test]
    fn rows_stand_under_their_onnx_numbers() {
        let cases = [
            (DataType::Float, "float32"),
            (DataType::String, "string"),
            (DataType::Float16, "float16"),
            (DataType::Double, "float64"),
            (DataType::Bfloat16, "bfloat16"),
            (DataType::Int4, "int4"),
            (DataType::Float4e2m1, "float4e2m1"),
        ];
        for (code, name) in cases {
            assert_eq!(ElementType::from_onnx(code as i64).unwrap().name, name);
        }
        assert_eq!(ElementType::from_onnx(0), None);
        assert_eq!(ElementType::from_onnx(-1), None);
        assert_eq!(ElementType::from_onnx(27), None);
    }

    #[test]
    fn packed_elements_round_up_to_bytes() {
        assert_eq!(ElementType::from_name("int4").unwrap().size_bytes(3), Some(2));
        assert_eq!(ElementType::from_name("float64").unwrap().size_bytes(usize::MAX), None);
    }

    #[test]
    fn a_dimension_of_0_hides_no_overflow() {
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[3, 0, 5]), Some(0));
        assert_eq!(element_count(&[0, usize::MAX, 2]), None);
    }
}
