//! Small ONNX graphs, with weights that repeat so that every codec can hold them.

use tract_onnx::pb;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Extent;
use tract_onnx::pb::type_proto;

/// Reproducible numbers (splitmix64).
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// In -1 .. 1.
    pub(super) fn uniform(&mut self) -> f32 {
        self.below(20_000) as f32 / 10_000.0 - 1.0
    }
}

pub(super) struct GraphBuilder {
    graph: pb::GraphProto,
    numbers: Numbers,
}

impl GraphBuilder {
    pub(super) fn new() -> Self {
        Self { graph: pb::GraphProto { name: "test".into(), ..Default::default() }, numbers: Numbers::new(7) }
    }

    /// Declares an f32 input; `None` is an extent that is any.
    pub(super) fn input(&mut self, name: &str, dims: &[Option<i64>]) {
        self.graph.input.push(value_info(name, DataType::Float, dims));
    }

    /// Declares an input of integers; `None` is an extent that is any.
    pub(super) fn indices(&mut self, name: &str, data_type: DataType, dims: &[Option<i64>]) {
        self.graph.input.push(value_info(name, data_type, dims));
    }

    pub(super) fn output(&mut self, name: &str) {
        let mut info = value_info(name, DataType::Float, &[]);
        if let Some(pb::TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &mut info.r#type {
            tensor.shape = None;
        }
        self.graph.output.push(info);
    }

    /// A weight with nine distinct values, most of them zeros; returns its name.
    pub(super) fn weight(&mut self, dims: &[usize]) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        let numbers = &mut self.numbers;
        let cell = |_| if numbers.below(6) > 0 { 0.0 } else { numbers.below(9) as f32 / 4.0 - 1.0 };
        let values: Vec<f32> = (0..dims.iter().product()).map(cell).collect();
        self.constant(&name, dims, &values);
        name
    }

    /// A bias of any values; returns its name.
    pub(super) fn bias(&mut self, dims: &[usize]) -> String {
        let name = format!("b{}", self.graph.initializer.len());
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| self.numbers.uniform()).collect();
        self.constant(&name, dims, &values);
        name
    }

    pub(super) fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) {
        self.graph.initializer.push(pb::TensorProto {
            name: name.into(),
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: DataType::Float.into(),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        });
    }

    pub(super) fn node(&mut self, node: pb::NodeProto) {
        self.graph.node.push(node);
    }

    pub(super) fn build(self) -> pb::ModelProto {
        let opset = pb::OperatorSetIdProto { version: 17, ..Default::default() };
        pb::ModelProto { ir_version: 8, graph: Some(self.graph), opset_import: vec![opset], ..Default::default() }
    }
}

fn value_info(name: &str, data_type: DataType, dims: &[Option<i64>]) -> pb::ValueInfoProto {
    let dim = |dim: &Option<i64>| Dimension { value: dim.map(Extent::DimValue), ..Default::default() };
    let shape = Some(pb::TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: data_type.into(), shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(pb::TypeProto { value, ..Default::default() });
    pb::ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

pub(super) fn node(op_type: &str, inputs: &[&str], attribute: Vec<pb::AttributeProto>) -> pb::NodeProto {
    named_node(op_type, inputs, "y", attribute)
}

pub(super) fn named_node(
    op_type: &str,
    inputs: &[&str],
    output: &str,
    attribute: Vec<pb::AttributeProto>,
) -> pb::NodeProto {
    let input = inputs.iter().map(|&name| name.to_owned()).collect();
    pb::NodeProto { op_type: op_type.into(), input, output: vec![output.into()], attribute, ..Default::default() }
}

pub(super) fn int(name: &str, i: i64) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), r#type: AttributeType::Int.into(), i, ..Default::default() }
}

pub(super) fn ints(name: &str, values: &[i64]) -> pb::AttributeProto {
    let ints = values.to_vec();
    pb::AttributeProto { name: name.into(), r#type: AttributeType::Ints.into(), ints, ..Default::default() }
}

pub(super) fn float(name: &str, f: f32) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), r#type: AttributeType::Float.into(), f, ..Default::default() }
}

pub(super) fn text(name: &str, value: &str) -> pb::AttributeProto {
    let s = value.as_bytes().to_vec();
    pb::AttributeProto { name: name.into(), r#type: AttributeType::String.into(), s, ..Default::default() }
}
