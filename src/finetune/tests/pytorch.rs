//! A few steps of LeNet-5 as PyTorch takes them: losses, gradients and where the weights end. The figures are made by
//! `tests/peers/make_finetune.py`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Attribute::{Int, Ints};
use super::{Given, Graph, Target};
use crate::finetune::{Network, Optimizer, Parameters, Schedule, Settings, Store, Trainer};
use crate::progress::Silent;

#[derive(Deserialize)]
struct Figures {
    losses: Vec<f64>,
    gradient_norms: BTreeMap<String, f64>,
    /// Seven weights of each tensor, evenly apart, after the last step.
    ends: BTreeMap<String, Vec<f64>>,
}

const SHAPES: [(&str, &[usize]); 8] = [
    ("conv1.weight", &[20, 1, 5, 5]),
    ("conv1.bias", &[20]),
    ("conv2.weight", &[50, 20, 5, 5]),
    ("conv2.bias", &[50]),
    ("fc1.weight", &[500, 800]),
    ("fc1.bias", &[500]),
    ("fc2.weight", &[10, 500]),
    ("fc2.bias", &[10]),
];

fn sines(count: usize, place: usize, scale: f64) -> Vec<f64> {
    (0..count).map(|i| scale * (0.7 * i as f64 * (place + 1) as f64 + place as f64).sin()).collect()
}

fn lenet5() -> Network {
    let mut graph = Graph::new().input("x", true);
    for (place, (name, dims)) in SHAPES.into_iter().enumerate() {
        let fan_in = if dims.len() > 1 { dims[1..].iter().product() } else { 100 };
        graph = graph.reals(name, dims, &sines(dims.iter().product(), place, 1.5 / (fan_in as f64).sqrt()));
    }
    let halve = || [("kernel_shape", Ints(vec![2, 2])), ("strides", Ints(vec![2, 2]))];
    let graph = graph.node("Conv", "x conv1.weight conv1.bias", "a", &[]).node("Relu", "a", "b", &[]);
    let graph = graph.node("MaxPool", "b", "c", &halve()).node("Conv", "c conv2.weight conv2.bias", "d", &[]);
    let graph = graph.node("Relu", "d", "e", &[]).node("MaxPool", "e", "f", &halve()).node("Flatten", "f", "g", &[]);
    let graph = graph.node("Gemm", "g fc1.weight fc1.bias", "h", &[("transB", Int(1))]).node("Relu", "h", "i", &[]);
    let graph = graph.node("Gemm", "i fc2.weight fc2.bias", "y", &[("transB", Int(1))]);
    Network::new(&graph.model("y"), None, &|_| None).unwrap()
}

fn assert_near(what: &str, own: f64, expected: f64, tolerance: f64) {
    assert!((own - expected).abs() <= tolerance * (1e-3 + expected.abs()), "{what}: {own}, PyTorch {expected}");
}

#[test]
fn steps_of_lenet5_are_those_of_pytorch() {
    let file: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/finetune_lenet5.json")).unwrap();
    let optimizers = [
        ("sgd", Optimizer::Sgd { momentum: 0.9, nesterov: true }, 0.05),
        ("adam", Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, 1e-3),
        ("adamw", Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, 1e-3),
    ];
    for (name, optimizer, learning_rate) in optimizers {
        let figures: Figures = serde_json::from_value(file[name].clone()).unwrap();
        let x = sines(12 * 784, 8, 1.0).into_iter().map(|x| (x as f32 + 1.0) / 2.0).collect();
        let target = Some(Target::Classes((0..12).map(|i| i * 7 % 10).collect()));
        let data = Given { dims: vec![1, 28, 28], x, target, len: 12 };
        let (schedule, clip_norm) = (Schedule::Constant, Some(0.1));
        let settings = Settings {
            optimizer,
            learning_rate,
            schedule,
            clip_norm,
            weight_decay: 1e-2,
            batch: 12,
            micro_batch: 5,
            ..Settings::default()
        };
        let network = lenet5();
        let parameters = Parameters::of(&network);
        let mut trainer = Trainer::new(network, parameters, settings).unwrap();
        let data = trainer.prepare(&data, (&Store::default(), ""), &Silent).unwrap();
        let (_, gradients) = trainer.gradients(&data, &(0..12).collect::<Vec<_>>()).unwrap();
        for (tensor, gradient) in &gradients {
            let norm = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
            assert_near(&format!("{name}: gradient of {tensor}"), norm, figures.gradient_norms[tensor], 1e-4);
        }
        for (step, &expected) in figures.losses.iter().enumerate() {
            let loss = trainer.epoch(&data, &mut |_, _| Ok(()), &Silent).unwrap().loss;
            assert_near(&format!("{name}: loss {step}"), loss, expected, 1e-3);
        }
        for (tensor, ends) in &figures.ends {
            let own = trainer.parameters().dense(tensor).unwrap();
            let own = own.iter().step_by((own.len() / 7).max(1));
            for (i, (own, &expected)) in own.zip(ends).enumerate() {
                assert_near(&format!("{name}: {tensor} {i}"), f64::from(*own), expected, 5e-3);
            }
        }
    }
}
