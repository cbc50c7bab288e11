//! Models and datasets for tests: a real network and its data, and small files made by hand, most of them wrong.

use std::io::{Cursor, Write};

use prost::Message;
use serde_json::{Value, json};
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

/// A 64-64-32-10 network for scikit-learn's digits: input `input` (N, 64), output `logits` (N, 10), weights `w0` to `w2`.
pub const DIGITS: &[u8] = include_bytes!("../fixtures/digits_mlp.onnx");

/// 450 digits: `x` (450, 64) float32 from 0 to 1, `y` (450,) uint8.
pub const DIGITS_DATA: &[u8] = include_bytes!("../fixtures/digits_val.npz");

/// How the dataset `digits` is mapped to the model `digits`.
pub fn digits_evaluation() -> Value {
    json!({
        "metrics": ["accuracy"],
        "data": {
            "dataset": "digits",
            "inputs": {"input": {"array": "x"}},
            "target": {"array": "y", "kind": "class"},
        },
    })
}

/// A job that evaluates version 0 of the model `digits`.
pub fn evaluation_job() -> Value {
    json!({"kind": "evaluate", "model": "digits", "version": 0, "evaluation": digits_evaluation()})
}

/// A job that compresses the model `digits` by pruning and sharing.
pub fn compress_digits() -> Value {
    json!({
        "kind": "compress",
        "model": "digits",
        "recipe": {
            "prune": {"criterion": "magnitude", "sparsity": 0.6},
            "quantize": {"method": "cws", "levels": 15},
            "encode": {"codec": "auto"},
        },
        "evaluation": digits_evaluation(),
    })
}

/// Three digits and what ONNX Runtime makes of them: members `input` (3 x 64), `logits` (3 x 10) and `labels`.
pub fn digits_predictions() -> Value {
    serde_json::from_str(include_str!("../fixtures/digits_predictions.json")).unwrap()
}

/// The three digits as a request of the inference protocol.
pub fn digits_request() -> Value {
    let data = &digits_predictions()["input"];
    json!({"inputs": [{"name": "input", "shape": [3, 64], "datatype": "FP32", "data": data}]})
}

/// `y = x . W` with a float32 weight of the given dimensions and bytes.
pub fn matmul_model(dims: Vec<i64>, raw_data: Vec<u8>) -> pb::ModelProto {
    let weight = pb::TensorProto {
        name: "weight".into(),
        dims,
        data_type: DataType::Float as i32,
        raw_data,
        ..pb::TensorProto::default()
    };
    let node = pb::NodeProto {
        op_type: "MatMul".into(),
        name: "product".into(),
        input: vec!["x".into(), "weight".into()],
        output: vec!["y".into()],
        ..pb::NodeProto::default()
    };
    model(vec![node], vec![weight], &[2, 4], &[2, 3])
}

/// `y = x . W` in another float type: 4 x 3 whole numbers and halves, which every type holds.
pub fn matmul_of(dtype: DataType, bytes_of: impl Fn(f64) -> Vec<u8>) -> pb::ModelProto {
    let raw_data = (0..12).flat_map(|i| bytes_of(f64::from(i - 4) / 2.0)).collect();
    let mut model = matmul_model(vec![4, 3], raw_data);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer[0].data_type = dtype as i32;
    for port in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(pb::type_proto::Value::TensorType(tensor)) = port.r#type.as_mut().and_then(|t| t.value.as_mut()) {
            tensor.elem_type = dtype as i32;
        }
    }
    model
}

/// A model whose weight is 4 x 3 and holds `value` at its sixth element, zeros elsewhere.
pub fn matmul_with(value: f32) -> pb::ModelProto {
    let mut weights = [0.5_f32; 12];
    weights[5] = value;
    matmul_model(vec![4, 3], weights.iter().flat_map(|weight| weight.to_le_bytes()).collect())
}

/// A model of two inputs, `x` (2, 4) and `z` (2, 3), and two outputs, `product` = x . W and `y` = x . W + z, both (2, 3).
pub fn two_inputs_and_outputs() -> pb::ModelProto {
    let mut model = matmul_with(2.0);
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].output = vec!["product".into()];
    graph.node.push(pb::NodeProto {
        op_type: "Add".into(),
        input: vec!["product".into(), "z".into()],
        output: vec!["y".into()],
        ..pb::NodeProto::default()
    });
    graph.input.push(port("z", &[2, 3]));
    graph.output.insert(0, port("product", &[2, 3]));
    model
}

/// A valid model with an operator that predictions lack.
pub fn unsupported_model() -> pb::ModelProto {
    let mut model = matmul_with(1.0);
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].output = vec!["product".into()];
    graph.node.push(pb::NodeProto {
        op_type: "MadeUpOperator".into(),
        input: vec!["product".into()],
        output: vec!["y".into()],
        ..pb::NodeProto::default()
    });
    model
}

/// A model whose weight lies in another file.
pub fn external_model() -> pb::ModelProto {
    let mut model = matmul_model(vec![4, 3], Vec::new());
    let weight = &mut model.graph.as_mut().unwrap().initializer[0];
    weight.data_location = Some(pb::tensor_proto::DataLocation::External as i32);
    let entry = |key: &str, value: &str| pb::StringStringEntryProto { key: key.into(), value: value.into() };
    weight.external_data = vec![entry("location", "/etc/passwd"), entry("offset", "0"), entry("length", "48")];
    model
}

/// A model of opset 17 that reads `x` and makes `y`; an extent of -1 is any.
pub fn model(
    node: Vec<pb::NodeProto>,
    initializer: Vec<pb::TensorProto>,
    input: &[i64],
    output: &[i64],
) -> pb::ModelProto {
    let graph = pb::GraphProto {
        name: "test".into(),
        node,
        initializer,
        input: vec![port("x", input)],
        output: vec![port("y", output)],
        ..pb::GraphProto::default()
    };
    pb::ModelProto {
        ir_version: 8,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(graph),
        ..pb::ModelProto::default()
    }
}

/// A node; inputs and outputs are separated by a space each, so that two say that an input is left out.
pub fn node(op: &str, inputs: &str, outputs: &str) -> pb::NodeProto {
    let names = |list: &str| list.split(' ').map(str::to_owned).collect();
    let input = if inputs.is_empty() { Vec::new() } else { names(inputs) };
    pb::NodeProto { op_type: op.into(), input, output: names(outputs), ..pb::NodeProto::default() }
}

/// `node` with a subgraph as attribute.
pub fn with_graph(mut node: pb::NodeProto, name: &str, graph: pb::GraphProto) -> pb::NodeProto {
    let attribute = pb::AttributeProto { name: name.into(), g: Some(graph), r#type: 5, ..Default::default() };
    node.attribute.push(attribute);
    node
}

/// `node` with a list of integers as attribute.
pub fn with_ints(mut node: pb::NodeProto, name: &str, ints: &[i64]) -> pb::NodeProto {
    let attribute = pb::AttributeProto { name: name.into(), ints: ints.to_vec(), r#type: 7, ..Default::default() };
    node.attribute.push(attribute);
    node
}

/// A float32 initializer.
pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> pb::TensorProto {
    initializer(name, dims, DataType::Float, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// An int64 initializer.
pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> pb::TensorProto {
    initializer(name, dims, DataType::Int64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn initializer(name: &str, dims: &[i64], data_type: DataType, raw_data: Vec<u8>) -> pb::TensorProto {
    let (name, dims, data_type) = (name.into(), dims.to_vec(), data_type as i32);
    pb::TensorProto { name, dims, data_type, raw_data, ..pb::TensorProto::default() }
}

/// A float32 input or output; an extent of -1 is any.
pub fn port(name: &str, dims: &[i64]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension};
    use pb::type_proto;
    let extent = |&dim: &i64| match dim {
        0.. => Dimension { value: Some(dimension::Value::DimValue(dim)), ..Dimension::default() },
        _ => Dimension { value: Some(dimension::Value::DimParam("n".into())), ..Dimension::default() },
    };
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(pb::TensorShapeProto { dim: dims.iter().map(extent).collect() }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    pb::ValueInfoProto {
        name: name.into(),
        r#type: Some(pb::TypeProto { value, ..pb::TypeProto::default() }),
        ..pb::ValueInfoProto::default()
    }
}

/// The bytes of an ONNX file.
pub fn onnx(model: &pb::ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// An `.npz` of float32 arrays: name, shape, and elements, all the same.
pub fn npz(arrays: &[(&str, &[usize], f32)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, shape, value) in arrays {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&npy(shape, *value)).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Source: the NumPy format, version 1.0.
fn npy(shape: &[usize], value: f32) -> Vec<u8> {
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({extents}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..shape.iter().product::<usize>()).flat_map(|_| value.to_le_bytes()));
    bytes
}
