//! Every operator's gradients against central differences in f64, and its outputs against tract.

use proptest::prelude::*;

use super::Attribute::{Float, Int, Ints, Word};
use super::{Attribute, Graph};

fn check(graph: Graph) {
    graph.assert_like_tract();
    graph.assert_gradients();
}

/// Windows on one or two axes: per axis kernel, stride, dilation, pads and how much input there is beyond the least.
#[derive(Debug, Clone)]
struct Windows {
    kernel: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    input: Vec<usize>,
}

/// Kernel, stride, dilation, pads and what there is beyond the least, of one axis.
type Axis = (i64, i64, i64, i64, i64, usize);

fn windows() -> impl Strategy<Value = Windows> {
    let axis = (1i64..4, 1i64..4, 1i64..3, 0i64..3, 0i64..3, 0usize..4);
    prop::collection::vec(axis, 1..=2).prop_map(|axes| {
        let list = |pick: fn(&Axis) -> i64| axes.iter().map(pick).collect::<Vec<_>>();
        // A pad is smaller than the kernel, as pools want it.
        let before = list(|a: &Axis| a.3.min(a.0 - 1));
        let after = list(|a: &Axis| a.4.min(a.0 - 1));
        Windows {
            kernel: list(|a: &Axis| a.0),
            strides: list(|a: &Axis| a.1),
            dilations: list(|a: &Axis| a.2),
            pads: [before, after].concat(),
            input: axes.iter().map(|a| ((a.0 - 1) * a.2 + 1) as usize + a.5).collect(),
        }
    })
}

impl Windows {
    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        vec![
            ("kernel_shape", Ints(self.kernel.clone())),
            ("strides", Ints(self.strides.clone())),
            ("pads", Ints(self.pads.clone())),
        ]
    }

    fn kernel(&self) -> Vec<usize> {
        self.kernel.iter().map(|&extent| extent as usize).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn convolutions(
        windows in windows(), batch in 1usize..4, groups in 1usize..4, inputs in 1usize..3, outputs in 1usize..3,
        has_bias: bool, seed: u64,
    ) {
        let mut attributes = windows.attributes();
        attributes.push(("dilations", Ints(windows.dilations.clone())));
        attributes.push(("group", Int(groups as i64)));
        let x = [&[batch, groups * inputs], &windows.input[..]].concat();
        let w = [&[groups * outputs, inputs], &windows.kernel()[..]].concat();
        let names = if has_bias { "x w b" } else { "x w" };
        let graph = Graph::new().random("x", &x, seed).random("w", &w, seed ^ 1).random("b", &[groups * outputs], seed ^ 2);
        check(graph.node("Conv", names, "y", &attributes));
    }

    #[test]
    fn convolutions_that_keep_extents(windows in windows(), upper: bool, seed: u64) {
        let word = Word(if upper { "SAME_UPPER" } else { "SAME_LOWER" });
        let attributes = [("auto_pad", word), ("strides", Ints(windows.strides.clone()))];
        let (x, w) = ([&[1, 2], &windows.input[..]].concat(), [&[2, 2], &windows.kernel()[..]].concat());
        let graph = Graph::new().random("x", &x, seed).random("w", &w, seed ^ 1);
        check(graph.node("Conv", "x w", "y", &attributes));
    }

    #[test]
    fn transposed_convolutions(
        windows in windows(), groups in 1usize..3, inputs in 1usize..3, outputs in 1usize..3, has_bias: bool, seed: u64,
    ) {
        let mut attributes = windows.attributes();
        attributes.push(("dilations", Ints(windows.dilations.clone())));
        attributes.push(("group", Int(groups as i64)));
        let x = [&[2, groups * inputs], &windows.input[..]].concat();
        let w = [&[groups * inputs, outputs], &windows.kernel()[..]].concat();
        let names = if has_bias { "x w b" } else { "x w" };
        let graph = Graph::new().random("x", &x, seed).random("w", &w, seed ^ 1).random("b", &[groups * outputs], seed ^ 2);
        check(graph.node("ConvTranspose", names, "y", &attributes));
    }

    #[test]
    fn pools(windows in windows(), max: bool, ceil: bool, include_pad: bool, seed: u64) {
        let mut attributes = windows.attributes();
        attributes.push(("ceil_mode", Int(i64::from(ceil))));
        if !max {
            attributes.push(("count_include_pad", Int(i64::from(include_pad))));
        }
        let graph = Graph::new().random("x", &[&[2, 3], &windows.input[..]].concat(), seed);
        let graph = graph.node(if max { "MaxPool" } else { "AveragePool" }, "x", "y", &attributes);
        // tract counts cells that ceil_mode adds behind the padding, and lets windows begin there.
        if !ceil {
            graph.assert_like_tract();
        }
        graph.assert_gradients();
    }

    #[test]
    fn products(
        m in 1usize..5, k in 1usize..5, n in 1usize..5, flags: [bool; 2], c in 0usize..6, alpha in 0.5f32..2.0, seed: u64,
    ) {
        let a = if flags[0] { [k, m] } else { [m, k] };
        let b = if flags[1] { [n, k] } else { [k, n] };
        let beta = if c == 1 { 1.0 } else { 0.5 };
        let attributes = [
            ("transA", Int(flags[0].into())), ("transB", Int(flags[1].into())), ("alpha", Float(alpha)), ("beta", Float(beta)),
        ];
        let shape = [vec![1], vec![n], vec![1, n], vec![m, 1], vec![m, n], vec![]][c].clone();
        let names = if shape.is_empty() { "a b" } else { "a b c" };
        let graph = Graph::new().random("a", &a, seed).random("b", &b, seed ^ 1).random("c", &shape, seed ^ 2);
        check(graph.node("Gemm", names, "y", &attributes));
    }

    #[test]
    fn batched_products(m in 1usize..4, k in 1usize..4, n in 1usize..4, shapes in 0usize..8, seed: u64) {
        let (a, b): (Vec<usize>, Vec<usize>) = match shapes {
            0 => (vec![m, k], vec![k, n]),
            1 => (vec![2, m, k], vec![k, n]),
            2 => (vec![2, m, k], vec![2, k, n]),
            3 => (vec![3, 2, m, k], vec![2, k, n]),
            4 => (vec![2, 1, m, k], vec![1, 3, k, n]),
            5 => (vec![m, k], vec![2, k, n]),
            6 => (vec![k], vec![2, k, n]),
            _ => (vec![2, m, k], vec![k]),
        };
        let graph = Graph::new().random("a", &a, seed).random("b", &b, seed ^ 1);
        check(graph.node("MatMul", "a b", "y", &[]));
    }

    #[test]
    fn pairs_with_broadcasting(op in 0usize..8, shapes in 0usize..6, seed: u64) {
        let op = ["Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Pow"][op];
        let (a, b): (&[usize], &[usize]) = match shapes {
            0 => (&[2, 3], &[2, 3]),
            1 => (&[2, 3, 2], &[3, 1]),
            2 => (&[2, 3], &[1]),
            3 if op != "PRelu" => (&[3], &[2, 3]),
            4 if op != "PRelu" => (&[2, 1, 2], &[1, 3, 1]),
            _ => (&[1, 4, 2], &[4, 1]),
        };
        let graph = Graph::new().positive("b", b, seed ^ 1);
        let graph = if op == "Pow" { graph.positive("a", a, seed) } else { graph.random("a", a, seed) };
        check(graph.node(op, "a b", "y", &[]));
    }

    #[test]
    fn reductions(op in 0usize..10, axes in prop::sample::subsequence(vec![0i64, 1, -1], 1..=3), keep: bool, seed: u64) {
        let op = [
            "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd",
            "ReduceLogSumExp", "ReduceLogSum",
        ][op];
        let graph = Graph::new().ints("axes", &[axes.len()], &axes);
        let graph = match op {
            "ReduceLogSum" => graph.positive("x", &[2, 3, 4], seed),
            _ => graph.random("x", &[2, 3, 4], seed),
        };
        let keep = ("keepdims", Int(keep.into()));
        check(match op {
            "ReduceSum" => graph.node(op, "x axes", "y", &[keep]),
            _ => graph.node(op, "x", "y", &[keep, ("axes", Ints(axes))]),
        });
    }

    #[test]
    fn softmaxes(log: bool, axis in -3i64..3, opset in prop::sample::select(vec![11i64, 13, 17]), seed: u64) {
        let graph = Graph { opset, ..Graph::new() }.random("x", &[2, 3, 4], seed);
        let graph = graph.node(if log { "LogSoftmax" } else { "Softmax" }, "x", "y", &[("axis", Int(axis))]);
        check(graph);
    }

    #[test]
    fn slices(starts: [i8; 2], ends: [i8; 2], steps in prop::array::uniform2(prop::sample::select(vec![-2i64, -1, 1, 3])), seed: u64) {
        let list = |list: [i8; 2]| list.map(|bound| i64::from(bound % 8));
        let graph = Graph::new().random("x", &[5, 2, 6], seed).ints("axes", &[2], &[0, -1]).ints("steps", &[2], &steps);
        let graph = graph.ints("starts", &[2], &list(starts)).ints("ends", &[2], &list(ends));
        let graph = graph.node("Slice", "x starts ends axes steps", "y", &[]);
        // tract refuses most empty slices and those that run backwards.
        if graph.run().unwrap().0.iter().all(|&dim| dim > 0) && steps.iter().all(|&step| step > 0) {
            graph.assert_like_tract();
        }
        graph.assert_gradients();
    }
}

#[test]
fn functions_of_one_value() {
    let with = |op: &'static str, attributes: Vec<(&'static str, Attribute)>| (op, attributes);
    let all = [
        with("Relu", vec![]),
        with("LeakyRelu", vec![("alpha", Float(0.2))]),
        with("Elu", vec![("alpha", Float(0.7))]),
        with("Selu", vec![]),
        with("Celu", vec![]),
        with("ThresholdedRelu", vec![("alpha", Float(0.317))]),
        with("HardSigmoid", vec![("alpha", Float(0.3))]),
        with("HardSwish", vec![]),
        with("Softplus", vec![]),
        with("Softsign", vec![]),
        with("Erf", vec![]),
        with("Sigmoid", vec![]),
        with("Tanh", vec![]),
        with("Exp", vec![]),
        with("Abs", vec![]),
        with("Neg", vec![]),
        with("Reciprocal", vec![]),
        with("Identity", vec![]),
        with("Dropout", vec![]),
    ];
    for (op, attributes) in all {
        check(Graph::new().random("x", &[3, 7], 5).node(op, "x", "y", &attributes));
    }
    // tract leaves out a factor of alpha.
    let celu = Graph::new().reals("x", &[3], &[-2.0, -0.5, 1.5]).node("Celu", "x", "y", &[("alpha", Float(0.5))]);
    let expected = [0.5 * (-4f64).exp_m1(), 0.5 * (-1f64).exp_m1(), 1.5];
    assert!(celu.run().unwrap().1.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6));
    celu.assert_gradients();
    for op in ["Log", "Sqrt"] {
        check(Graph::new().positive("x", &[3, 7], 5).node(op, "x", "y", &[]));
    }
    let clip = Graph::new().random("x", &[3, 7], 5).reals("low", &[], &[-0.917]).reals("high", &[], &[1.111]);
    check(clip.node("Clip", "x low high", "y", &[]));
    for approximate in ["none", "tanh"] {
        let graph = Graph { opset: 20, ..Graph::new() }.random("x", &[3, 7], 5);
        graph.node("Gelu", "x", "y", &[("approximate", Word(approximate))]).assert_gradients();
    }
    // GELU as exporters write it before it was an operator.
    let gelu = Graph::new().random("x", &[3, 7], 5).reals("root", &[], &[2f64.sqrt()]).reals("one", &[], &[1.0]);
    let gelu = gelu.reals("half", &[], &[0.5]).node("Div", "x root", "a", &[]).node("Erf", "a", "b", &[]);
    let gelu = gelu.node("Add", "b one", "c", &[]).node("Mul", "x c", "d", &[]).node("Mul", "d half", "y", &[]);
    check(gelu);
}

#[test]
fn normalisations() {
    for dims in [&[3, 4][..], &[2, 3, 5], &[2, 3, 2, 2]] {
        let channels = [dims[1]];
        let graph = Graph::new().random("x", dims, 1).positive("s", &channels, 2).random("b", &channels, 3);
        let graph = graph.random("m", &channels, 4).positive("v", &channels, 5);
        check(graph.node("BatchNormalization", "x s b m v", "y", &[("epsilon", Float(1e-3))]));
        if dims.len() > 2 {
            let graph = Graph::new().random("x", dims, 1).positive("s", &channels, 2).random("b", &channels, 3);
            check(graph.node("InstanceNormalization", "x s b", "y", &[]));
        }
        for axis in [-1, 1] {
            let run = &dims[if axis < 0 { dims.len() - 1 } else { 1 }..];
            let graph = Graph::new().random("x", dims, 1).positive("s", run, 2).random("b", run, 3);
            let graph = graph.node("LayerNormalization", "x s b", "y", &[("axis", Int(axis))]);
            graph.assert_gradients();
            if axis < 0 {
                graph.assert_like_tract();
            }
        }
    }
}

#[test]
fn global_pools() {
    for op in ["GlobalMaxPool", "GlobalAveragePool"] {
        for dims in [&[2, 3, 4][..], &[2, 3, 2, 3]] {
            check(Graph::new().random("x", dims, 3).node(op, "x", "y", &[]));
        }
    }
}

#[test]
fn changes_of_shape() {
    let x = || Graph::new().random("x", &[2, 3, 1, 4], 9);
    check(x().ints("to", &[3], &[0, -1, 2]).node("Reshape", "x to", "y", &[]));
    for axis in 0..=4 {
        check(x().node("Flatten", "x", "y", &[("axis", Int(axis))]));
    }
    check(x().ints("axes", &[1], &[2]).node("Squeeze", "x axes", "y", &[]));
    check(x().ints("axes", &[2], &[0, -1]).node("Unsqueeze", "x axes", "y", &[]));
    check(x().node("Transpose", "x", "y", &[("perm", Ints(vec![2, 0, 3, 1]))]));
    check(x().node("Transpose", "x", "y", &[]));
    check(x().random("z", &[2, 2, 1, 4], 4).node("Concat", "x z x", "y", &[("axis", Int(-3))]));
    check(x().ints("to", &[4], &[2, 3, 5, 4]).node("Expand", "x to", "y", &[]));
    check(x().ints("times", &[4], &[1, 2, 3, 1]).node("Tile", "x times", "y", &[]));
    check(x().ints("sizes", &[2], &[1, 2]).node("Split", "x sizes", "a b", &[("axis", Int(1))]).node(
        "Mul",
        "a b",
        "y",
        &[],
    ));
    let equal = x().node("Split", "x", "a b", &[("axis", Int(3))]).node("Sub", "a b", "y", &[]);
    Graph { opset: 11, ..equal }.assert_gradients();
}

#[test]
fn choices_of_entries() {
    let table = || Graph::new().random("x", &[4, 3], 2);
    check(table().ints("i", &[2, 2], &[0, 3, -1, 0]).node("Gather", "x i", "y", &[]));
    check(table().ints("i", &[3], &[2, 0, 2]).node("Gather", "x i", "y", &[("axis", Int(1))]));
    check(table().ints("i", &[], &[1]).node("Gather", "x i", "y", &[("axis", Int(-1))]));
    for mode in ["constant", "reflect", "edge"] {
        let graph = table().ints("pads", &[4], &[1, 2, 2, 0]).reals("fill", &[], &[0.5]);
        let inputs = if mode == "constant" { "x pads fill" } else { "x pads" };
        check(graph.node("Pad", inputs, "y", &[("mode", Word(mode))]));
    }
    let image = Graph::new().random("x", &[1, 2, 2, 3], 2).reals("none", &[0], &[]).reals(
        "scales",
        &[4],
        &[1.0, 1.0, 2.0, 3.0],
    );
    let attributes = [
        ("mode", Word("nearest")),
        ("coordinate_transformation_mode", Word("asymmetric")),
        ("nearest_mode", Word("floor")),
    ];
    check(image.node("Resize", "x none scales", "y", &attributes));
    // 3 / 0.6 is 5 in f32 and less in f64.
    let image = Graph::new().random("x", &[1, 1, 10, 5], 2).reals("none", &[0], &[]);
    let image = image.reals("scales", &[4], &[1.0, 1.0, f64::from(0.6f32), 2.5]);
    check(image.node("Resize", "x none scales", "y", &attributes));
    let chosen = Graph::new().random("a", &[2, 3], 1).random("b", &[3], 2).ints("c", &[2, 1], &[1, 0]);
    chosen.node("Where", "c a b", "y", &[]).assert_gradients();
    let compared = Graph::new().random("a", &[2, 3], 1).random("b", &[3], 2).node("Less", "a b", "c", &[]);
    check(compared.node("Where", "c a b", "y", &[]));
}

#[test]
fn products_and_sums_of_powers_have_slopes_where_others_overflow_or_vanish() {
    let zeros = Graph::new().reals("x", &[2, 3], &[0.0, 2.0, 3.0, 0.0, 5.0, 0.0]);
    check(zeros.node("ReduceProd", "x", "y", &[("axes", Ints(vec![1]))]));
    let large = Graph::new().reals("x", &[3], &[1000.0, 1001.0, 999.5]);
    let large = large.node("ReduceLogSumExp", "x", "y", &[]);
    let (_, values) = large.run().unwrap();
    assert!((values[0] - 1_001.464_368_784).abs() < 1e-3, "{values:?}");
    large.assert_gradients();
}
