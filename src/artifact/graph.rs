//! The graph in an artifact: a ModelProto without the data of stored tensors, without prose, small.
//!
//! Kept: everything that execution and export need, and all names, so that an exported file reads like the uploaded
//! one. Dropped: doc strings (exporters fill them with stack traces) and training information.

use bytes::Bytes;
use half::f16;
use prost::Message;
use tract_onnx::pb;

use super::error::RecordError;
use crate::model::{ElementType, ModelError, check_decodable, constants_mut, element_count};
use crate::tensor::FloatType;

/// Fewer elements than this stay in their own type: they are epsilons and scales, and save nothing.
const HALVE_MIN_ELEMENTS: usize = 8;

/// The bytes of `skeleton` as an artifact stores them, before deflate. With `halve`, float constants that the graph still
/// holds are stored as binary16 where that keeps 11 significant bits of each value.
pub(super) fn encode(skeleton: &pb::ModelProto, halve: bool) -> Vec<u8> {
    let mut model = skeleton.clone();
    drop_prose(&mut model);
    if halve {
        constants_mut(&mut model).for_each(|(_, tensor)| halve_constant(tensor));
    }
    model.encode_to_vec()
}

/// The inverse of [`encode`], prose apart. Two bytes may decode to a struct of hundreds, so what decoding costs is worked
/// out first.
pub(super) fn decode(bytes: Bytes) -> Result<pb::ModelProto, RecordError> {
    check_decodable(bytes.clone()).map_err(|error| match error {
        ModelError::GraphTooLarge { max_bytes } => RecordError::GraphTooLarge { max_bytes },
        ModelError::TooDeep { max } => RecordError::GraphTooDeep { max },
        ModelError::Malformed { reason, .. } => RecordError::GraphMalformed { reason },
        _ => RecordError::GraphMalformed { reason: "a length points past its end" },
    })?;
    let mut model = pb::ModelProto::decode(bytes)?;
    constants_mut(&mut model).for_each(|(_, tensor)| widen_constant(tensor));
    Ok(model)
}

/// Values as binary16, or `None` where one of them would lose more than its type does anyway (it overflows, or is
/// subnormal).
pub(super) fn halve(values: impl Iterator<Item = f64>) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.size_hint().0 * 2);
    for value in values {
        let half = f16::from_f64(value);
        if !(half.is_normal() || value == 0.0) {
            return None;
        }
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    Some(bytes)
}

/// Binary16 values widened to `dtype`.
pub(super) fn widen(halves: &[u8], dtype: FloatType) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(halves.len() / 2 * dtype.size_bytes());
    for half in halves.as_chunks::<2>().0 {
        let bits = dtype.to_bits(f16::from_le_bytes(*half).to_f64()).to_le_bytes();
        bytes.extend_from_slice(&bits[..dtype.size_bytes()]);
    }
    bytes
}

/// The type and element count of a 32- or 64-bit float tensor.
fn wide_float(tensor: &pb::TensorProto) -> Option<(FloatType, usize)> {
    let dtype = ElementType::from_onnx(i64::from(tensor.data_type))?.float()?;
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    (dtype.size_bytes() > 2).then_some((dtype, element_count(&dims?)?))
}

fn halve_constant(tensor: &mut pb::TensorProto) {
    let Some((dtype, elements)) = wide_float(tensor).filter(|(_, n)| *n >= HALVE_MIN_ELEMENTS) else { return };
    let size = dtype.size_bytes();
    let halved = if tensor.raw_data.len() == elements.saturating_mul(size) {
        let value = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..size].copy_from_slice(bytes);
            dtype.from_bits(u64::from_le_bytes(word))
        };
        halve(tensor.raw_data.chunks_exact(size).map(value))
    } else if tensor.float_data.len() == elements {
        halve(tensor.float_data.iter().map(|&v| f64::from(v)))
    } else if tensor.double_data.len() == elements {
        halve(tensor.double_data.iter().copied())
    } else {
        None
    };
    if let Some(bytes) = halved {
        tensor.raw_data = bytes;
        tensor.float_data.clear();
        tensor.double_data.clear();
    }
}

/// A float constant whose `raw_data` holds two bytes an element was halved: nothing else has that length.
fn widen_constant(tensor: &mut pb::TensorProto) {
    let Some((dtype, elements)) = wide_float(tensor) else { return };
    if elements > 0 && elements.checked_mul(2) == Some(tensor.raw_data.len()) {
        tensor.raw_data = widen(&tensor.raw_data, dtype);
    }
}

fn drop_prose(model: &mut pb::ModelProto) {
    model.doc_string.clear();
    model.training_info.clear();
    model.graph.iter_mut().for_each(drop_graph_prose);
    for function in &mut model.functions {
        function.doc_string = None;
        function.node.iter_mut().for_each(drop_node_prose);
    }
}

fn drop_graph_prose(graph: &mut pb::GraphProto) {
    graph.doc_string.clear();
    graph.initializer.iter_mut().for_each(|tensor| tensor.doc_string.clear());
    for values in [&mut graph.input, &mut graph.output, &mut graph.value_info] {
        values.iter_mut().for_each(|value| value.doc_string.clear());
    }
    graph.node.iter_mut().for_each(drop_node_prose);
}

fn drop_node_prose(node: &mut pb::NodeProto) {
    node.doc_string.clear();
    for attribute in &mut node.attribute {
        attribute.doc_string.clear();
        attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(|tensor| tensor.doc_string.clear());
        attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(drop_graph_prose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model_with(values: Vec<f32>) -> pb::ModelProto {
        let bias = pb::TensorProto {
            name: "bias".into(),
            dims: vec![values.len() as i64],
            data_type: 1,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            doc_string: "prose".into(),
            ..Default::default()
        };
        let graph = pb::GraphProto { initializer: vec![bias], name: "g".into(), ..Default::default() };
        pb::ModelProto { graph: Some(graph), doc_string: "prose".into(), ..Default::default() }
    }

    fn bias_of(model: &pb::ModelProto) -> Vec<f32> {
        let raw = &model.graph.as_ref().unwrap().initializer[0].raw_data;
        raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn names_stay_and_prose_goes() {
        let back = decode(encode(&model_with(vec![1.0; 9]), false).into()).unwrap();
        assert_eq!(back.graph.as_ref().unwrap().name, "g");
        assert_eq!(back.graph.as_ref().unwrap().initializer[0].doc_string, "");
        assert_eq!(bias_of(&back), [1.0; 9]);
    }

    #[test]
    fn halved_constants_come_back_as_floats() {
        let values: Vec<f32> = (0..9).map(|i| 0.1 * i as f32).collect();
        let (plain, halved) = (encode(&model_with(values.clone()), false), encode(&model_with(values.clone()), true));
        assert_eq!(plain.len() - halved.len(), 18);
        let back = bias_of(&decode(halved.into()).unwrap());
        assert!(back.iter().zip(&values).all(|(b, v)| *b == f16::from_f32(*v).to_f32()));
    }

    #[test]
    fn a_graph_that_would_outgrow_memory_is_refused() {
        let nodes = vec![pb::NodeProto::default(); 2_000_000];
        let graph = pb::GraphProto { node: nodes, ..Default::default() };
        let bytes = pb::ModelProto { graph: Some(graph), ..Default::default() }.encode_to_vec();
        assert_eq!(bytes.len(), 4_000_005);
        assert!(matches!(decode(bytes.into()), Err(RecordError::GraphTooLarge { .. })));
        // Field 7, the graph, of more bytes than there are.
        let error = RecordError::GraphMalformed { reason: "a length points past its end" };
        assert_eq!(decode(Bytes::from_static(&[0x3a, 9, 0])), Err(error));
    }

    #[test]
    fn values_beyond_binary16_keep_their_type() {
        for outlier in [1e-12, 7e4] {
            let mut values = vec![1.0; 9];
            values[4] = outlier;
            let model = model_with(values.clone());
            assert_eq!(bias_of(&decode(encode(&model, true).into()).unwrap()), values);
        }
    }
}
