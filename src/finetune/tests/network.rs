//! What of a graph is read, and how.

use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{DatumTypeExt, Framework, InferenceModelExt, IntoRunnable, Tensor as TractTensor, tvec};

use super::Attribute::{Int, Word};
use super::{Graph, numbers, spaced};
use crate::finetune::cache::bind;
use crate::finetune::program::Program;
use crate::finetune::{Batch, Network, Parameters, TuneError};
use crate::infer::{Array, ArrayData};

fn network(graph: &Graph) -> Result<Network, TuneError> {
    Network::new(&graph.model("y"), None, &|_| None)
}

#[test]
fn bundled_networks_compute_what_tract_does() {
    let files: [(&[u8], &[usize]); 3] = [
        (include_bytes!("../../../examples/mnist/lenet300.onnx"), &[784]),
        (include_bytes!("../../../examples/mnist/lenet5.onnx"), &[1, 28, 28]),
        (include_bytes!("../../../tests/fixtures/digits_mlp.onnx"), &[64]),
    ];
    for (file, dims) in files {
        let model = ModelProto::decode(file).unwrap();
        let network = Network::new(&model, None, &|_| None).unwrap();
        let program = Program::new(&network, &Parameters::new(), network.output).unwrap();
        let dims = [&[3], dims].concat();
        let x: Vec<f32> = spaced(dims.iter().product(), 1, 0.0, 1.0).into_iter().map(|x| x as f32).collect();
        let array = Array { dims: dims.clone(), data: ArrayData::F32(x.clone()) };
        let batch = Batch { inputs: vec![(network.inputs[0].0.clone(), array)], target: None };
        let inputs = bind(&network, &program, batch, 3).unwrap();
        let own = numbers(&program.run_frozen(&network, inputs).unwrap()[0]);

        let tract = tract_onnx::onnx().model_for_read(&mut &file[..]).unwrap();
        let x = TractTensor::from_shape(&dims, &x).unwrap();
        let tract = tract.with_input_fact(0, x.datum_type().fact(&dims).into()).unwrap();
        let run = tract.into_optimized().unwrap().into_runnable().unwrap().run(tvec!(x.into())).unwrap();
        let expected =
            run[0].cast_to::<f64>().unwrap().to_plain_array_view::<f64>().unwrap().iter().copied().collect::<Vec<_>>();
        assert_eq!(own.len(), expected.len());
        for (own, expected) in own.iter().zip(expected) {
            assert!((own - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{own}, tract {expected}");
        }
    }
}

#[test]
fn what_can_be_trained_are_tensors_that_gradients_reach() {
    let graph = Graph::new().input("x", true).random("s", &[3], 1).random("b", &[3], 2).random("m", &[3], 3);
    let graph = graph.positive("v", &[3], 4).random("w", &[2, 3], 5).reals("two", &[], &[2.0]);
    let graph = graph.node("BatchNormalization", "x s b m v", "n", &[]).node("Mul", "n two", "p", &[]);
    let graph = graph.node("Gemm", "p w", "y", &[("transB", Int(1))]);
    let network = network(&graph).unwrap();
    let tensors: Vec<_> = network.tensors().collect();
    assert_eq!(tensors, [("b", vec![3]), ("s", vec![3]), ("w", vec![2, 3])]);
    assert_eq!(network.values("w").unwrap().len(), 6);
    assert!(matches!(network.values("m"), Err(TuneError::UnknownParameter { name }) if name == "m"));
}

#[test]
fn constants_may_come_from_elsewhere() {
    let graph = Graph::new().input("x", true).reals("w", &[2, 1], &[1.0, 2.0]).node("MatMul", "x w", "y", &[]);
    let mut model = graph.model("y");
    model.graph.as_mut().unwrap().initializer[0].float_data.clear();
    assert!(matches!(Network::new(&model, None, &|_| None), Err(TuneError::ElementCount { found: 0, .. })));
    let array = Array { dims: vec![2, 1], data: ArrayData::F64(vec![3.0, 4.0]) };
    let network = Network::new(&model, None, &|name| (name == "w").then(|| array.clone())).unwrap();
    assert_eq!(network.values("w").unwrap(), [3.0, 4.0]);
}

#[test]
fn graphs_that_cannot_be_trained_are_refused_by_name() {
    let x = || Graph::new().input("x", true);
    let refusal = |graph: Graph| network(&graph).unwrap_err().to_string();
    assert_eq!(refusal(x().node("LSTM", "x", "y", &[])), "fine-tuning does not support the operator LSTM, of node y");
    assert_eq!(
        refusal(x().node("Resize", "x", "y", &[("mode", Word("cubic"))])),
        "fine-tuning does not support mode = cubic of the Resize y"
    );
    assert_eq!(refusal(x().node("Relu", "z", "y", &[])), "node y reads z, which nothing before it produces");
    assert_eq!(refusal(x().node("Relu", "x", "x", &[])), "x is produced twice");
    assert_eq!(refusal(x().node("Relu", "x", "z", &[])), "the graph has no output y");
    assert_eq!(refusal(x().node("Concat", "x", "y", &[])), "the Concat y has no attribute axis of the right type");
    assert_eq!(refusal(Graph::new()), "the file holds weights only, no graph to train");
}
