//! An opened model file.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tract_onnx::pb;

use super::arrays::row_major;
use super::graph::{analyze_main, elsewhere};
use super::limits::check_limits;
use super::scan::{Scan, StoredTensor, scan};
use super::source::Source;
use super::tensor_proto::stream_elements;
use super::{ArrayEntry, ArrayFile, Family, Format, INLINE_LIMIT, Kept, ModelError, Port, Role, Weight};
use super::{constants_mut, ports, wiring};
use crate::tensor::{FloatData, FloatType, Layout};

/// An opened model file: graph and index of tensors; the tensors' bytes stay in the file. Shared by threads.
#[derive(Debug)]
pub struct Model {
    pub(super) content: Content,
    /// Tensors with other elements than the file's, little-endian and row-major.
    pub(super) changed: HashMap<String, Arc<[u8]>>,
    pub(super) weights: Vec<Weight>,
    pub(super) kept: Vec<Kept>,
    /// Indices into `kept`.
    pub(super) detached: Vec<usize>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Onnx {
        source: Arc<Source>,
        skeleton: Box<pb::ModelProto>,
        tensors: Arc<HashMap<String, StoredTensor>>,
    },
    /// A weights-only file.
    Arrays(Arc<ArrayFile>),
}

impl Model {
    /// Opens the file at `path`, whose format is told from its bytes. Checks the structure of the file completely (sizes
    /// against bytes present, dimension products, external data, values that nothing produces), reads no weight.
    ///
    /// # Errors
    /// A [`ModelError`] that names the first fault.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::from_source(Source::open(path)?)
    }

    /// Opens a model held in memory.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, ModelError> {
        Self::from_source(Source::Memory(bytes))
    }

    fn from_source(source: Source) -> Result<Self, ModelError> {
        match source.format()? {
            Format::Onnx => Self::from_onnx(source),
            format => Self::from_arrays(ArrayFile::open(source, format)?),
        }
    }

    fn from_onnx(source: Source) -> Result<Self, ModelError> {
        let Scan { skeleton, tensors } = scan(&source)?;
        let graph = skeleton.graph.as_ref().ok_or(ModelError::MissingGraph)?;
        check_names(graph)?;
        check_limits(&skeleton)?;
        // The one mandatory field that writers put behind the graph: without it the file was cut short.
        if skeleton.opset_import.is_empty() {
            return Err(ModelError::MissingOpset);
        }
        Self::index(Arc::new(source), skeleton, Arc::new(tensors), HashMap::new())
    }

    /// Finds weights and kept tensors in a graph whose large tensors are elsewhere.
    pub(super) fn index(
        source: Arc<Source>,
        mut skeleton: pb::ModelProto,
        tensors: Arc<HashMap<String, StoredTensor>>,
        changed: HashMap<String, Arc<[u8]>>,
    ) -> Result<Self, ModelError> {
        wiring::check(skeleton.graph.as_ref().ok_or(ModelError::MissingGraph)?)?;
        let (weights, mut kept) = analyze_main(&skeleton);
        let names: HashSet<&str> = weights.iter().map(|w| w.name.as_str()).collect();
        for (name, tensor) in constants_mut(&mut skeleton) {
            if names.contains(name.as_str()) {
                empty(tensor);
            }
        }
        let is_detached = |kept: &Kept| kept.size_bytes >= INLINE_LIMIT && kept.dtype != "string";
        // Tensors elsewhere stay in the skeleton: one in a subgraph may have the name of another in the main graph.
        let detached = (0..kept.len()).filter(|&index| is_detached(&kept[index])).collect();
        kept.extend(elsewhere(&skeleton));
        let (inputs, outputs) = ports(&skeleton);
        let content = Content::Onnx { source, skeleton: Box::new(skeleton), tensors };
        Ok(Self { content, changed, weights, kept, detached, inputs, outputs })
    }

    /// Every float tensor of rank 2 and more is a weight.
    fn from_arrays(file: ArrayFile) -> Result<Self, ModelError> {
        if file.entries().is_empty() {
            return Err(ModelError::NoTensors);
        }
        let (mut weights, mut kept) = (Vec::new(), Vec::new());
        for entry in file.entries() {
            let (name, dims) = (entry.name.clone(), entry.dims.clone());
            let reason = match entry.element.float() {
                Some(dtype) if dims.len() >= 2 && !dims.contains(&0) => {
                    weights.push(lone_weight(name, dims, dtype));
                    continue;
                }
                Some(_) if dims.contains(&0) => "an empty tensor".to_owned(),
                Some(_) => format!("rank {}", dims.len()),
                None => format!("{} tensor", entry.element.name),
            };
            let (dtype, size_bytes) = (entry.element.name.into(), entry.size_bytes);
            kept.push(Kept { name, dims, dtype, size_bytes, reason });
        }
        let detached = (0..kept.len()).collect();
        let (content, changed) = (Content::Arrays(Arc::new(file)), HashMap::new());
        Ok(Self { content, changed, weights, kept, detached, inputs: Vec::new(), outputs: Vec::new() })
    }

    /// What the file is.
    pub fn format(&self) -> Format {
        match &self.content {
            Content::Onnx { .. } => Format::Onnx,
            Content::Arrays(file) => file.format(),
        }
    }

    /// What can be compressed, in file order.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// What cannot, in file order.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Inputs that a prediction needs; empty for a weights-only file.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Outputs of a prediction; empty for a weights-only file.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The graph without the bytes of its large tensors: every weight's, and every other initializer's or Constant's of
    /// [`INLINE_LIMIT`] bytes or more, is emptied (names, dims and types stay). `None` for a weights-only file.
    pub fn skeleton(&self) -> Option<&pb::ModelProto> {
        match &self.content {
            Content::Onnx { skeleton, .. } => Some(skeleton),
            Content::Arrays(_) => None,
        }
    }

    /// Reads a weight of this model, in tensor order (not yet matrix order).
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::UnknownTensor`] for a weight of another model, and for an `.npz` a member that
    /// does not inflate to what it announced.
    pub fn read(&self, weight: &Weight) -> Result<FloatData, ModelError> {
        let elements = weight.dims.iter().product();
        let mut data = match weight.dtype {
            FloatType::F64 => FloatData::F64(Vec::with_capacity(elements)),
            _ => FloatData::F32(Vec::with_capacity(elements)),
        };
        self.stream(&weight.name, |chunk| match (&mut data, FloatData::from_le_bytes(weight.dtype, chunk)) {
            (FloatData::F32(data), FloatData::F32(chunk)) => data.extend_from_slice(&chunk),
            (FloatData::F64(data), FloatData::F64(chunk)) => data.extend_from_slice(&chunk),
            _ => unreachable!("a type is always read into the same buffer"),
        })?;
        Ok(match data {
            _ if !self.is_column_major(&weight.name) => data,
            FloatData::F32(values) => FloatData::F32(row_major(&weight.dims, values)),
            FloatData::F64(values) => FloatData::F64(row_major(&weight.dims, values)),
        })
    }

    /// Kept tensors whose bytes are NOT in the skeleton: ONNX initializers and Constants of [`INLINE_LIMIT`] bytes or
    /// more; all of them in a weights-only file.
    pub fn detached(&self) -> impl Iterator<Item = &Kept> {
        self.detached.iter().map(|&index| &self.kept[index])
    }

    /// Bytes of a detached tensor: little-endian elements as ONNX `raw_data` would hold them.
    ///
    /// # Errors
    /// As [`Model::read`].
    pub fn read_detached(&self, kept: &Kept) -> Result<Vec<u8>, ModelError> {
        if let Some(bytes) = self.changed.get(&kept.name) {
            return Ok(bytes.to_vec());
        }
        if let Content::Arrays(file) = &self.content {
            return file.read(self.array(file, &kept.name)?);
        }
        let mut bytes = Vec::new();
        self.stream(&kept.name, |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
    }

    /// Bytes of the file.
    pub fn size_bytes(&self) -> u64 {
        self.source().len()
    }

    /// SHA-256 of the file, lower-case hex. Reads it once from end to end.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn sha256(&self) -> Result<String, ModelError> {
        Ok(self.source().sha256()?)
    }

    fn source(&self) -> &Source {
        match &self.content {
            Content::Onnx { source, .. } => source,
            Content::Arrays(file) => file.source(),
        }
    }

    fn array<'a>(&self, file: &'a ArrayFile, name: &str) -> Result<&'a ArrayEntry, ModelError> {
        file.entry(name).ok_or_else(|| ModelError::UnknownTensor { name: name.to_owned() })
    }

    /// True for an array in Fortran order.
    fn is_column_major(&self, name: &str) -> bool {
        match &self.content {
            _ if self.changed.contains_key(name) => false,
            Content::Arrays(file) => file.entry(name).is_some_and(|entry| entry.column_major),
            Content::Onnx { .. } => false,
        }
    }

    /// Streams the little-endian elements of a tensor in the order of the file, whole elements at a time.
    fn stream(&self, name: &str, mut sink: impl FnMut(&[u8])) -> Result<(), ModelError> {
        if let Some(bytes) = self.changed.get(name) {
            sink(bytes);
            return Ok(());
        }
        match &self.content {
            Content::Arrays(file) => file.stream(self.array(file, name)?, sink),
            Content::Onnx { source, tensors, .. } => match tensors.get(name) {
                Some(stored) => stream_elements(source, &stored.range, stored.element, sink),
                None => Err(ModelError::UnknownTensor { name: name.to_owned() }),
            },
        }
    }
}

/// Fails when two initializers or node outputs share a name: nobody could say which one a reader means.
fn check_names(graph: &pb::GraphProto) -> Result<(), ModelError> {
    let mut names = HashSet::new();
    let initializers = graph.initializer.iter().map(|t| &t.name);
    let outputs = graph.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty());
    match initializers.chain(outputs).find(|name| !names.insert(name.as_str())) {
        Some(name) => Err(ModelError::DuplicateName { name: name.clone() }),
        None => Ok(()),
    }
}

pub(super) fn empty(tensor: &mut pb::TensorProto) {
    tensor.raw_data = Vec::new();
    tensor.float_data = Vec::new();
    tensor.double_data = Vec::new();
    tensor.int32_data = Vec::new();
}

/// A weight of a file that says nothing of its use.
fn lone_weight(name: String, dims: Vec<usize>, dtype: FloatType) -> Weight {
    let role = Role::Expanded { reason: "a weights-only file has no graph".into() };
    let (op, layout, family) = ("Tensor".into(), Layout::RowsFirst, Family::Dense);
    Weight { name, op, dims, dtype, layout, family, role, uses: Vec::new(), chain: Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use tract_onnx::pb::tensor_proto::DataType;

    use super::super::analyze;
    use super::super::fixture::{
        constant, counting, floats, graph, model, node, npy, npz, open, port, with_graph, with_int,
    };
    use super::*;

    /// A two-layer perceptron: one large weight, one small one, biases, and a large table of integers.
    fn perceptron() -> pb::ModelProto {
        let table = pb::TensorProto {
            name: "table".into(),
            dims: vec![1024],
            data_type: DataType::Int64 as i32,
            int64_data: (0..1024).collect(),
            ..Default::default()
        };
        let nodes = vec![
            with_int(node("Gemm", "x w1 b1", "h"), "transB", 1),
            node("Relu", "h", "r"),
            constant("w2", counting("", &[40, 2])),
            node("MatMul", "r w2", "y"),
            node("Gather", "table y", "z"),
        ];
        let mut graph = graph(nodes, vec![counting("w1", &[40, 30]), counting("b1", &[40]), table]);
        graph.input = vec![port("x", &[-1, 30]), port("w1", &[40, 30])];
        graph.output = vec![port("y", &[-1, 2])];
        model(graph)
    }

    fn perceptron_bytes() -> Vec<u8> {
        perceptron().encode_to_vec()
    }

    #[test]
    fn a_model_is_opened_without_its_weights() {
        let model = Model::from_bytes(perceptron_bytes().into()).unwrap();
        assert_eq!(model.format(), Format::Onnx);
        let names: Vec<_> = model.weights().iter().map(|w| (w.name.as_str(), w.layout)).collect();
        assert_eq!(names, [("w1", Layout::RowsFirst), ("w2", Layout::Transposed)]);
        let kept: Vec<_> = model.kept().iter().map(|k| (k.name.as_str(), k.reason.as_str())).collect();
        assert_eq!(kept, [("b1", "read by Gemm as the bias"), ("table", "int64 tensor")]);
        assert_eq!(model.detached().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["table"]);
        let graph = model.skeleton().unwrap().graph.as_ref().unwrap();
        assert!(graph.initializer[0].raw_data.is_empty() && graph.initializer[0].dims == [40, 30]);
        assert_eq!(graph.initializer[1].raw_data.len(), 160);
        assert!(graph.initializer[2].int64_data.is_empty());
        assert!(graph.node[2].attribute[0].t.as_ref().unwrap().raw_data.is_empty());
        assert_eq!(model.inputs().iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(model.inputs()[0].dims, [None, Some(30)]);
        assert_eq!(model.outputs()[0].datatype, "FP32");
    }

    #[test]
    fn weights_and_detached_tensors_are_read_back_bit_by_bit() {
        let model = Model::from_bytes(perceptron_bytes().into()).unwrap();
        let counting = |n: usize| FloatData::F32((1..=n).map(|i| i as f32).collect());
        assert_eq!(model.read(&model.weights()[0]).unwrap(), counting(1200));
        assert_eq!(model.read(&model.weights()[1]).unwrap(), counting(80));
        let table = model.read_detached(&model.kept()[1]).unwrap();
        assert_eq!(table, (0..1024i64).flat_map(i64::to_le_bytes).collect::<Vec<_>>());
        let other = Weight { name: "other".into(), ..model.weights()[0].clone() };
        assert!(matches!(model.read(&other), Err(ModelError::UnknownTensor { .. })));
    }

    #[test]
    fn filling_the_skeleton_gives_the_model_back() {
        let opened = Model::from_bytes(perceptron_bytes().into()).unwrap();
        let mut filled = opened.skeleton().unwrap().clone();
        assert_ne!(filled, perceptron());
        for (name, tensor) in constants_mut(&mut filled) {
            if let Some(weight) = opened.weights().iter().find(|w| w.name == name) {
                opened.read(weight).unwrap().write_le_bytes(weight.dtype, &mut tensor.raw_data);
            } else if let Some(kept) = opened.detached().find(|k| k.name == name) {
                let bytes = opened.read_detached(kept).unwrap();
                tensor.int64_data = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
            }
        }
        assert_eq!(filled, perceptron());
        assert_eq!(analyze(&filled), analyze(opened.skeleton().unwrap()));
    }

    #[test]
    fn a_tensor_in_a_branch_that_shadows_a_weight_stays_in_the_graph() {
        let branch = graph(vec![node("MatMul", "x w", "b")], vec![counting("w", &[40, 30])]);
        let nodes = vec![with_graph(node("If", "c", "i"), "then_branch", branch), node("MatMul", "x w", "y")];
        let model = open(graph(nodes, vec![counting("w", &[40, 40])])).unwrap();
        assert_eq!(model.weights().iter().map(|w| (w.name.as_str(), w.dims.len())).collect::<Vec<_>>(), [("w", 2)]);
        assert_eq!((model.kept()[0].name.as_str(), model.kept()[0].dims.as_slice()), ("w", &[40, 30][..]));
        assert_eq!(model.detached().count(), 0);
        let node = &model.skeleton().unwrap().graph.as_ref().unwrap().node[0];
        assert_eq!(node.attribute[0].g.as_ref().unwrap().initializer[0].raw_data.len(), 4800);
    }

    #[test]
    fn files_that_are_no_models_name_their_fault() {
        type Expected = fn(&ModelError) -> bool;
        let mut nested = graph(vec![], vec![]);
        for _ in 0..20 {
            nested = graph(vec![super::super::fixture::with_graph(node("If", "", ""), "then_branch", nested)], vec![]);
        }
        let twice = graph(vec![node("Relu", "x", "w")], vec![counting("w", &[2, 2])]);
        let long = counting("w", &[2, 2]);
        let short = pb::TensorProto { dims: vec![2, 3], ..long.clone() };
        let cases: [(Vec<u8>, Expected); 9] = [
            (vec![], |e| matches!(e, ModelError::Empty)),
            (b"hello, this is text".to_vec(), |e| matches!(e, ModelError::UnknownFormat)),
            (vec![0x89; 64], |e| matches!(e, ModelError::UnknownFormat)),
            (vec![8, 8], |e| matches!(e, ModelError::MissingGraph)),
            (perceptron_bytes()[..500].to_vec(), |e| matches!(e, ModelError::Truncated { .. })),
            (model(nested).encode_to_vec(), |e| matches!(e, ModelError::TooDeep { .. })),
            (model(twice).encode_to_vec(), |e| matches!(e, ModelError::DuplicateName { .. })),
            (model(graph(vec![], vec![long.clone(), long])).encode_to_vec(), |e| {
                matches!(e, ModelError::DuplicateName { .. })
            }),
            (model(graph(vec![], vec![short])).encode_to_vec(), |e| {
                matches!(e, ModelError::DataSize { needed: 24, found: 16, .. })
            }),
        ];
        for (bytes, expected) in cases {
            let error = Model::from_bytes(bytes.into()).unwrap_err();
            assert!(expected(&error), "{error:?}");
        }
    }

    #[test]
    fn a_graph_that_would_outgrow_memory_is_refused() {
        // Two bytes on the wire, a struct of hundreds of bytes in memory, two million times.
        let nodes = vec![pb::NodeProto::default(); 2_000_000];
        let error = open(graph(nodes, vec![])).unwrap_err();
        assert!(matches!(error, ModelError::GraphTooLarge { .. }), "{error}");
    }

    #[test]
    fn weights_in_every_float_type_are_found() {
        for (code, dtype) in [
            (DataType::Float16, FloatType::F16),
            (DataType::Bfloat16, FloatType::Bf16),
            (DataType::Float, FloatType::F32),
            (DataType::Double, FloatType::F64),
        ] {
            let mut tensor = floats("w", &[2, 2], &[]);
            tensor.data_type = code as i32;
            FloatData::F64(vec![1.0, -0.5, 0.0, 2.0]).write_le_bytes(dtype, &mut tensor.raw_data);
            let model = open(graph(vec![node("MatMul", "x w", "y")], vec![tensor])).unwrap();
            let weight = &model.weights()[0];
            assert_eq!(weight.dtype, dtype);
            assert_eq!(model.read(weight).unwrap().to_f32().as_ref(), [1.0, -0.5, 0.0, 2.0]);
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = Bytes::from(perceptron_bytes());
        for len in 0..bytes.len() {
            // Cuts between two fields leave sound protobuf: there the graph is missing, or the operator set.
            assert!(Model::from_bytes(bytes.slice(..len)).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_an_error_or_a_model_that_can_be_read(bit in 0..perceptron_bytes().len() * 8) {
            let mut bytes = perceptron_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(model) = Model::from_bytes(bytes.into()) {
                for weight in model.weights() {
                    let elements: usize = weight.dims.iter().product();
                    prop_assert_eq!(model.read(weight).unwrap().len(), elements);
                    prop_assert!(weight.layout.shape(&weight.dims).is_some());
                }
                for kept in model.detached() {
                    prop_assert_eq!(model.read_detached(kept).unwrap().len() as u64, kept.size_bytes);
                }
            }
        }

        #[test]
        fn mutated_files_are_an_error_or_a_model_that_can_be_read(
            file in 0..4usize,
            edits in prop::collection::vec((any::<u16>(), prop::sample::select(&[0u8, 1, 0x7f, 0x80, 0xff][..])), 1..6),
        ) {
            let array = || npy("<f4", false, "(3, 4)", &[7; 48]);
            let mut bytes = match file {
                0 => perceptron_bytes(),
                1 => npz(&[("a", array()), ("b", array())], false),
                2 => npz(&[("a", array()), ("b", array())], true),
                _ => {
                    let header = br#"{"a":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]}}"#;
                    [&(header.len() as u64).to_le_bytes()[..], header, &[7; 48]].concat()
                }
            };
            for (at, value) in edits {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            if let Ok(model) = Model::from_bytes(bytes.into()) {
                // A deflated array is checked against its announcement when it is read.
                model.weights().iter().for_each(|weight| drop(model.read(weight)));
                model.detached().for_each(|kept| drop(model.read_detached(kept)));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), start in 0..4usize) {
            let front: &[u8] = [&b"\x08\x08:"[..], b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{", b""][start];
            let _ = Model::from_bytes([front, &bytes].concat().into());
        }
    }
}
