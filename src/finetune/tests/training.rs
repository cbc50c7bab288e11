//! Runs: what moves, what stays, and that they repeat.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Attribute::{Int, Ints};
use super::{Given, Graph, Target, spaced};
use crate::finetune::{
    Codebook, Loss, Network, Optimizer, Parameter, Parameters, Settings, Store, Teacher, Trainer, TuneError, Values,
    cubic_sparsity,
};
use crate::progress::{CancelFlag, Silent};
use crate::prune::Mask;

/// A small convolutional network of three classes on 6 x 6 images.
fn network(softmax: bool) -> Network {
    let graph = Graph::new().input("x", true).random("w1", &[4, 1, 3, 3], 1).random("b1", &[4], 2);
    let graph = graph.random("w2", &[8, 16], 3).random("b2", &[8], 4).random("w3", &[3, 8], 5);
    let graph = graph.node("Conv", "x w1 b1", "a", &[]).node("Relu", "a", "b", &[]);
    let graph = graph.node("MaxPool", "b", "c", &[("kernel_shape", Ints(vec![2, 2])), ("strides", Ints(vec![2, 2]))]);
    let graph = graph.node("Flatten", "c", "d", &[]).node("Gemm", "d w2 b2", "e", &[("transB", Int(1))]);
    let graph =
        graph.node("Tanh", "e", "f", &[]).node("Gemm", "f w3", if softmax { "g" } else { "y" }, &[("transB", Int(1))]);
    let graph = if softmax { graph.node("Softmax", "g", "y", &[]) } else { graph };
    Network::new(&graph.model("y"), None, &|_| None).unwrap()
}

/// Images whose brightest third is their class.
fn images(len: usize) -> Given {
    let mut x: Vec<f32> = spaced(len * 36, 7, -0.5, 0.5).into_iter().map(|x| x as f32).collect();
    let classes: Vec<i64> = (0..len as i64).map(|i| i * 7 % 3).collect();
    for (image, class) in x.chunks_mut(36).zip(&classes) {
        image[*class as usize * 12..][..12].iter_mut().for_each(|x| *x += 1.0);
    }
    Given { dims: vec![1, 6, 6], x, target: Some(Target::Classes(classes)), len }
}

fn settings() -> Settings {
    let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: true };
    Settings { learning_rate: 0.02, batch: 20, micro_batch: 8, epochs: 4, optimizer, ..Settings::default() }
}

fn keep(_: u64, _: &mut Parameters) -> Result<(), TuneError> {
    Ok(())
}

fn run(trainer: &mut Trainer, data: &Given, epochs: usize) -> f64 {
    let data = trainer.prepare(data, (&Store::default(), ""), &Silent).unwrap();
    (0..epochs).map(|_| trainer.epoch(&data, &mut keep, &Silent).unwrap().loss).last().unwrap_or(f64::NAN)
}

fn dense(trainer: &Trainer, name: &str) -> Vec<f32> {
    trainer.parameters().dense(name).unwrap()
}

#[test]
fn training_learns() {
    let (data, parameters) = (images(90), Parameters::of(&network(true)));
    let optimizers = [
        settings().optimizer,
        Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
        Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
    ];
    for optimizer in optimizers {
        let settings =
            Settings { optimizer, weight_decay: 1e-3, clip_norm: Some(5.0), warmup_steps: 3, epochs: 20, ..settings() };
        let mut trainer = Trainer::new(network(true), parameters.clone(), settings).unwrap();
        let before =
            trainer.evaluate(&trainer.prepare(&data, (&Store::default(), ""), &Silent).unwrap(), &Silent).unwrap();
        run(&mut trainer, &data, 20);
        let after =
            trainer.evaluate(&trainer.prepare(&data, (&Store::default(), ""), &Silent).unwrap(), &Silent).unwrap();
        assert!(after.loss < before.loss / 2.0, "{optimizer:?}: {before:?}, {after:?}");
        assert!(after.accuracy.unwrap() > 0.9, "{optimizer:?}: {after:?}");
        assert_eq!((after.samples, after.mse), (90, None));
    }
}

#[test]
fn a_softmax_at_the_end_changes_no_step() {
    let data = images(40);
    let states = [true, false].map(|softmax| {
        let network = network(softmax);
        assert_eq!(network.ends_in_softmax(), softmax);
        let parameters = Parameters::of(&network);
        let mut trainer = Trainer::new(network, parameters, settings()).unwrap();
        run(&mut trainer, &data, 1);
        trainer.state()
    });
    assert!(states[0] == states[1]);
}

#[test]
fn masked_weights_stay_zero() {
    let network = network(false);
    let mut parameters = Parameters::of(&network);
    let kept: Vec<bool> = (0..128).map(|i| i % 3 == 0).collect();
    let values = Values::Free { values: parameters.dense("w2").unwrap(), mask: Some(Mask::new(kept.iter().copied())) };
    parameters.set("w2", values).unwrap();
    let adam = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let before = parameters.dense("w2").unwrap();
    for optimizer in [settings().optimizer, adam] {
        let settings = Settings { optimizer, weight_decay: 0.1, ..settings() };
        let mut trainer = Trainer::new(super::training::network(false), parameters.clone(), settings).unwrap();
        run(&mut trainer, &images(40), 2);
        for ((after, before), &kept) in dense(&trainer, "w2").iter().zip(&before).zip(&kept) {
            assert_eq!((after == before, *after == 0.0), (!kept, !kept));
        }
    }
}

#[test]
fn pruning_between_steps_holds() {
    let network = network(false);
    let parameters = Parameters::of(&network);
    let mut trainer = Trainer::new(network, parameters, settings()).unwrap();
    let data = images(40);
    let data = trainer.prepare(&data, (&Store::default(), ""), &Silent).unwrap();
    let mut prune = |step: u64, parameters: &mut Parameters| {
        let values = parameters.dense("w2").unwrap();
        let mut sizes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let least = sizes[(cubic_sparsity(step, 0, 4, 0.0, 0.75) * 128.0) as usize];
        let mask = Some(Mask::new(values.iter().map(|value| value.abs() >= least)));
        parameters.set("w2", Values::Free { values, mask })
    };
    for _ in 0..4 {
        trainer.epoch(&data, &mut prune, &Silent).unwrap();
    }
    assert_eq!(dense(&trainer, "w2").iter().filter(|value| **value == 0.0).count(), 96);
}

#[test]
fn a_codebook_moves_by_the_sum_over_the_weights_that_share_it() {
    let network = network(false);
    let mut free = Parameters::of(&network);
    let symbols = |len: usize| (0..len).map(|i| (i * 5 % 4) as u16).collect::<Vec<_>>();
    let codebook = Codebook { values: vec![-0.5, 0.0, 0.25, 1.0], zero: Some(1) };
    let mut shared = free.clone();
    let id = shared.add_codebook(codebook.clone());
    for (name, dims) in [("w2", vec![8, 16]), ("w3", vec![3, 8])] {
        let symbols = symbols(dims.iter().product());
        let values = symbols.iter().map(|&symbol| codebook.values[usize::from(symbol)]).collect();
        free.set(name, Values::Free { values, mask: None }).unwrap();
        shared.set(name, Values::Shared { codebook: id, symbols }).unwrap();
    }
    let settings =
        Settings { optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false }, learning_rate: 0.1, ..settings() };
    let data = images(20);
    let free = Trainer::new(network, free, settings.clone()).unwrap();
    let mut shared = Trainer::new(super::training::network(false), shared, settings).unwrap();
    let batch: Vec<usize> = (0..20).collect();
    let (_, gradients) =
        free.gradients(&free.prepare(&data, (&Store::default(), ""), &Silent).unwrap(), &batch).unwrap();
    let mut sums = [0.0; 4];
    for (_, gradient) in gradients.iter().filter(|(name, _)| name == "w2" || name == "w3") {
        symbols(gradient.len())
            .iter()
            .zip(gradient)
            .for_each(|(&symbol, g)| sums[usize::from(symbol)] += f64::from(*g));
    }
    let prepared = shared.prepare(&data, (&Store::default(), ""), &Silent).unwrap();
    shared.epoch(&prepared, &mut keep, &Silent).unwrap();
    let after = &shared.parameters().codebooks()[id].values;
    for (symbol, ((after, before), sum)) in after.iter().zip(&codebook.values).zip(sums).enumerate() {
        let expected = if symbol == 1 { 0.0 } else { f64::from(*before) - 0.1 * sum };
        assert!((f64::from(*after) - expected).abs() < 1e-5, "{symbol}: {after}, not {expected}");
    }
    assert_eq!(after[1].to_bits(), 0);
}

#[test]
fn what_is_frozen_stays_and_is_computed_once() {
    let data = images(40);
    let mut states = Vec::new();
    for cache_bytes in [1 << 20, 0] {
        let network = network(false);
        let mut parameters = Parameters::of(&network);
        for name in ["w1", "b1"] {
            let frozen = Parameter { is_frozen: true, ..parameters.get(name).unwrap().clone() };
            parameters.insert(name, frozen);
        }
        let before = parameters.dense("w1").unwrap();
        let teacher = Some(Teacher { temperature: 2.0, weight: 0.5 });
        let settings = Settings { cache_bytes, teacher, ..settings() };
        let mut trainer = Trainer::new(network, parameters, settings).unwrap();
        run(&mut trainer, &data, 2);
        assert_eq!(dense(&trainer, "w1"), before);
        assert!(
            trainer.change(|parameters| parameters.set("w1", Values::Free { values: before, mask: None })).is_err()
        );
        states.push(["w2", "b2", "w3"].map(|name| dense(&trainer, name)));
    }
    assert_eq!(states[0], states[1]);
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let data = images(50);
    let states = [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let network = network(false);
            let parameters = Parameters::of(&network);
            let mut trainer =
                Trainer::new(network, parameters, Settings { clip_norm: Some(0.5), ..settings() }).unwrap();
            run(&mut trainer, &data, 2);
            trainer.state()
        })
    });
    assert!(states[0] == states[1] && states[1] == states[2]);
}

#[test]
fn a_run_goes_on_from_its_state_bit_for_bit() {
    let data = images(50);
    for optimizer in [settings().optimizer, Optimizer::Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 }] {
        let settings = Settings { optimizer, ..settings() };
        let mut parameters = Parameters::of(&network(false));
        let id = parameters.add_codebook(Codebook { values: vec![0.0, -0.5, 0.5], zero: Some(0) });
        parameters.set("w3", Values::Shared { codebook: id, symbols: (0..24).map(|i| i % 3).collect() }).unwrap();
        let values = parameters.dense("w2").unwrap();
        parameters.set("w2", Values::Free { mask: Some(Mask::new((0..128).map(|i| i % 2 == 0))), values }).unwrap();
        let mut whole = Trainer::new(network(false), parameters.clone(), settings.clone()).unwrap();
        run(&mut whole, &data, 3);
        let mut first = Trainer::new(network(false), parameters, settings.clone()).unwrap();
        run(&mut first, &data, 1);
        let mut second = Trainer::resume(network(false), settings, &first.state()).unwrap();
        assert_eq!((second.epochs(), second.steps()), (1, 3));
        run(&mut second, &data, 2);
        assert!(whole.state() == second.state());
    }
}

#[test]
fn damaged_states_are_refused() {
    let network = network(false);
    let parameters = Parameters::of(&network);
    let mut trainer = Trainer::new(network, parameters, settings()).unwrap();
    run(&mut trainer, &images(20), 1);
    let state = trainer.state();
    let resume = |bytes: &[u8]| Trainer::resume(super::training::network(false), settings(), bytes).map(|_| ());
    resume(&state).unwrap();
    for len in (0..state.len()).step_by(97) {
        assert!(matches!(resume(&state[..len]), Err(TuneError::Checkpoint { .. })), "{len}");
    }
    for place in (0..state.len()).step_by(53) {
        let mut bad = state.clone();
        bad[place] ^= 4;
        assert!(matches!(resume(&bad), Err(TuneError::Checkpoint { .. })), "{place}");
    }
    let other = Settings { seed: 1, ..settings() };
    let refused = Trainer::resume(super::training::network(false), other, &state).unwrap_err();
    assert!(matches!(refused, TuneError::OtherRun { what: "settings" }));
}

#[test]
fn a_student_that_is_its_teacher_has_nothing_to_learn() {
    let data = Given { target: None, ..images(30) };
    let network = network(true);
    let parameters = Parameters::of(&network);
    let teacher = Some(Teacher { temperature: 3.0, weight: 0.5 });
    let mut trainer = Trainer::new(network, parameters.clone(), Settings { teacher, ..settings() }).unwrap();
    assert!(run(&mut trainer, &data, 1).abs() < 1e-6);
    let moved = dense(&trainer, "w2")
        .iter()
        .zip(parameters.dense("w2").unwrap())
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(moved < 1e-5, "{moved}");

    // A student that was damaged approaches it again.
    let mut damaged = parameters;
    let values = damaged.dense("w2").unwrap().iter().map(|value| value * 0.5).collect();
    damaged.set("w2", Values::Free { values, mask: None }).unwrap();
    let settings = Settings { teacher, epochs: 20, ..settings() };
    let mut trainer = Trainer::new(super::training::network(true), damaged, settings).unwrap();
    let first = run(&mut trainer, &data, 1);
    assert!(run(&mut trainer, &data, 19) < first / 2.0);
}

#[test]
fn values_are_learnt_too() {
    let graph = Graph::new().input("x", true).random("w", &[3, 2], 1).reals("b", &[2], &[0.0, 0.0]);
    let graph = graph.node("MatMul", "x w", "z", &[]).node("Add", "z b", "y", &[]);
    let network = Network::new(&graph.model("y"), None, &|_| None).unwrap();
    let x: Vec<f32> = spaced(90, 3, -1.0, 1.0).into_iter().map(|x| x as f32).collect();
    let target = x.chunks(3).flat_map(|x| [x[0] - 2.0 * x[1] + 0.5, x[2]]).collect();
    let data = Given { dims: vec![3], x, target: Some(Target::Values(target)), len: 30 };
    let optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let settings = Settings { loss: Loss::Mse, learning_rate: 0.1, optimizer, epochs: 80, ..settings() };
    let parameters = Parameters::of(&network);
    let mut trainer = Trainer::new(network, parameters, settings).unwrap();
    run(&mut trainer, &data, 80);
    let metrics =
        trainer.evaluate(&trainer.prepare(&data, (&Store::default(), ""), &Silent).unwrap(), &Silent).unwrap();
    assert!(metrics.mse.unwrap() < 1e-4 && metrics.accuracy.is_none(), "{metrics:?}");
    assert!((dense(&trainer, "b")[0] - 0.5).abs() < 0.02);
}

#[test]
fn bad_samples_are_named() {
    let network = network(false);
    let parameters = Parameters::of(&network);
    let mut trainer = Trainer::new(network, parameters, settings()).unwrap();
    let mut fail = |data: Given| {
        let data = trainer.prepare(&data, (&Store::default(), ""), &Silent)?;
        trainer.epoch(&data, &mut keep, &Silent).map(|_| ())
    };
    let classes = |list: Vec<i64>| Some(Target::Classes(list));
    let label = fail(Given { target: classes(vec![3; 20]), ..images(20) });
    assert!(matches!(label, Err(TuneError::Label { classes: 3, .. })), "{label:?}");
    assert!(matches!(fail(Given { target: None, ..images(20) }), Err(TuneError::NoTarget)));
    let values = fail(Given { target: Some(Target::Values(vec![0.0; 60])), ..images(20) });
    assert!(matches!(values, Err(TuneError::TargetLength { expected: 1, found: 3 })), "{values:?}");
    let shape = fail(Given { dims: vec![1, 9, 4], ..images(20) });
    assert!(matches!(shape, Err(TuneError::Node { .. })), "{shape:?}");
    assert!(matches!(fail(images(0)), Err(TuneError::NoSamples)));
    let mut huge = images(20);
    huge.x.iter_mut().for_each(|x| *x = f32::NAN);
    assert!(matches!(fail(huge), Err(TuneError::Diverged { step: 0, .. })));
}

#[test]
fn bad_parameters_are_named() {
    let refusal = |change: &dyn Fn(&mut Parameters)| {
        let network = network(false);
        let mut parameters = Parameters::of(&network);
        change(&mut parameters);
        Trainer::new(network, parameters, settings()).unwrap_err().to_string()
    };
    let free = |dims: &[usize], len: usize, is_frozen: bool| Parameter {
        dims: dims.to_vec(),
        values: Values::Free { values: vec![0.0; len], mask: None },
        is_frozen,
    };
    assert_eq!(refusal(&|p| p.insert("z", free(&[1], 1, false))), "the graph has no tensor z that can be trained");
    assert_eq!(
        refusal(&|p| p.insert("w3", free(&[8, 3], 24, false))),
        "tensor w3 has the shape [3, 8], its parameter [8, 3]"
    );
    assert_eq!(refusal(&|p| p.insert("w3", free(&[3, 8], 23, false))), "values of w3 are 23, not 24");
    assert_eq!(refusal(&|p| p.tensors.values_mut().for_each(|t| t.is_frozen = true)), "no tensor is trained");
    let share = |codebook: usize| Values::Shared { codebook, symbols: vec![2; 24] };
    assert_eq!(refusal(&|p| p.tensors.get_mut("w3").unwrap().values = share(1)), "w3 refers to codebook 1 of 0");
    let book = |values: &[f32], zero| Codebook { values: values.to_vec(), zero };
    assert_eq!(
        refusal(&|p| {
            p.add_codebook(book(&[0.0, 1.0], None));
            p.tensors.get_mut("w3").unwrap().values = share(0);
        }),
        "w3 refers to symbol 2 of 2"
    );
    assert_eq!(
        refusal(&|p| {
            p.add_codebook(book(&[0.5], Some(0)));
        }),
        "symbol 0 of codebook 0 is to be zero, but is 0.5"
    );
    let bad = Settings { learning_rate: f64::NAN, ..settings() };
    let refused = Trainer::new(network(false), Parameters::of(&network(false)), bad).unwrap_err().to_string();
    assert_eq!(refused, "learning_rate must be above 0, not NaN");
}

#[test]
fn a_cancelled_epoch_stops() {
    let network = network(false);
    let parameters = Parameters::of(&network);
    let mut trainer = Trainer::new(network, parameters, settings()).unwrap();
    let (data, flag, steps) = (images(100), CancelFlag::default(), AtomicU64::new(0));
    let data = trainer.prepare(&data, (&Store::default(), ""), &flag).unwrap();
    let mut hook = |step: u64, _: &mut Parameters| {
        flag.cancel();
        steps.store(step, Ordering::Relaxed);
        Ok(())
    };
    assert!(matches!(trainer.epoch(&data, &mut hook, &flag), Err(TuneError::Cancelled(_))));
    assert_eq!(steps.load(Ordering::Relaxed), 1);
}

#[test]
fn sparsity_rises_along_a_cubic() {
    let at = |step| cubic_sparsity(step, 10, 20, 0.2, 0.8);
    for (step, expected) in [(0, 0.2), (10, 0.2), (15, 0.8 - 0.6 / 8.0), (20, 0.8), (99, 0.8)] {
        assert!((at(step) - expected).abs() < 1e-12, "{step}: {}", at(step));
    }
}
