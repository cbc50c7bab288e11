//! Half-width graphs (f16, bf16) turned into f32 ones: predictions compute in f32, and tract lacks bf16 altogether.
//!
//! Every constant, declared type and cast of the graph is widened, so tract never meets a half. What goes in and comes
//! out keeps its type: [`Predictor`](super::Predictor) converts at the edge.

use half::{bf16, f16};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto;

/// Widens every half of `model` to f32.
pub(super) fn widen_halves(model: &mut pb::ModelProto) {
    if let Some(graph) = &mut model.graph {
        widen_graph(graph);
    }
}

fn widen_graph(graph: &mut pb::GraphProto) {
    graph.initializer.iter_mut().for_each(widen_tensor);
    for value in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        if let Some(pb::TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &mut value.r#type {
            tensor.elem_type = widened(tensor.elem_type);
        }
    }
    for node in &mut graph.node {
        let to = match node.op_type.as_str() {
            "Cast" => Some("to"),
            "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "EyeLike" | "Multinomial"
            | "Bernoulli" => Some("dtype"),
            _ => None,
        };
        for attribute in &mut node.attribute {
            if to == Some(attribute.name.as_str()) {
                attribute.i = i32::try_from(attribute.i).map_or(attribute.i, |to| widened(to).into());
            }
            attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(widen_tensor);
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(widen_graph);
        }
    }
}

/// The element type that stands for `data_type` once halves are gone.
fn widened(data_type: i32) -> i32 {
    match DataType::try_from(data_type) {
        Ok(DataType::Float16 | DataType::Bfloat16) => DataType::Float.into(),
        _ => data_type,
    }
}

fn widen_tensor(tensor: &mut pb::TensorProto) {
    let widen: fn(u16) -> f32 = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float16) => |bits| f16::from_bits(bits).to_f32(),
        Ok(DataType::Bfloat16) => |bits| bf16::from_bits(bits).to_f32(),
        _ => return,
    };
    // ONNX keeps halves in raw_data, or their bits in int32_data, one element each.
    let raw = tensor.raw_data.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
    let listed = tensor.int32_data.iter().map(|&bits| bits as u16);
    let bytes = raw.chain(listed).flat_map(|bits| widen(bits).to_le_bytes()).collect();
    tensor.raw_data = bytes;
    tensor.int32_data.clear();
    tensor.data_type = DataType::Float.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(raw_data: Vec<u8>, int32_data: Vec<i32>, data_type: DataType) -> pb::TensorProto {
        pb::TensorProto { data_type: data_type.into(), raw_data, int32_data, dims: vec![1], ..Default::default() }
    }

    #[test]
    fn halves_widen_from_either_storage() {
        let one = 1.0f32.to_le_bytes().to_vec();
        for mut tensor in [
            half(f16::ONE.to_le_bytes().to_vec(), vec![], DataType::Float16),
            half(vec![], vec![f16::ONE.to_bits().into()], DataType::Float16),
            half(bf16::ONE.to_le_bytes().to_vec(), vec![], DataType::Bfloat16),
        ] {
            widen_tensor(&mut tensor);
            assert_eq!((tensor.data_type, &tensor.raw_data), (DataType::Float.into(), &one));
            assert!(tensor.int32_data.is_empty());
        }
    }

    #[test]
    fn casts_to_halves_become_casts_to_f32_in_subgraphs_too() {
        let to = pb::AttributeProto { name: "to".into(), i: 10, ..Default::default() };
        let cast = pb::NodeProto { op_type: "Cast".into(), attribute: vec![to], ..Default::default() };
        let body = pb::GraphProto { node: vec![cast], ..Default::default() };
        let then = pb::AttributeProto { g: Some(body), ..Default::default() };
        let mut graph = pb::GraphProto {
            node: vec![pb::NodeProto { op_type: "If".into(), attribute: vec![then], ..Default::default() }],
            ..Default::default()
        };
        widen_graph(&mut graph);
        let body = graph.node[0].attribute[0].g.as_ref().unwrap();
        assert_eq!(body.node[0].attribute[0].i, 1);
    }
}
