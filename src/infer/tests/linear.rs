//! Gemm and MatMul.

use super::graph::{GraphBuilder, float, int, named_node, node};
use super::*;

#[test]
fn gemm_agrees_for_every_transposition_side_and_bias() {
    let (m, k, n) = (5, 7, 4);
    let biases: [Option<&[usize]>; 7] =
        [None, Some(&[]), Some(&[1]), Some(&[n]), Some(&[1, n]), Some(&[m, 1]), Some(&[m, n])];
    let mut case = 0;
    for (trans_a, trans_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for weight_left in [false, true] {
            for bias in biases {
                let pick = |transposed, dims: [usize; 2]| if transposed == 1 { [dims[1], dims[0]] } else { dims };
                let (a, b) = (pick(trans_a, [m, k]), pick(trans_b, [k, n]));
                let (x, w) = if weight_left { (b, a) } else { (a, b) };
                let model = one_node(&x.map(|d| Some(d as i64)), |graph| {
                    let weight = graph.weight(&w);
                    let bias = bias.map(|dims| graph.bias(dims));
                    let mut inputs = if weight_left { vec![weight.as_str(), "x"] } else { vec!["x", weight.as_str()] };
                    inputs.extend(bias.as_deref());
                    let factors = [float("alpha", 0.5), float("beta", -2.0)];
                    node(
                        "Gemm",
                        &inputs,
                        [vec![int("transA", trans_a), int("transB", trans_b)], factors.to_vec()].concat(),
                    )
                });
                let name = format!("transA {trans_a} transB {trans_b} left {weight_left} bias {bias:?}");
                assert_agree(&name, &model, codec_for(case), &[&x]);
                case += 1;
            }
        }
    }
}

#[test]
fn gemm_takes_any_batch() {
    let model = one_node(&[None, Some(9)], |graph| {
        let (weight, bias) = (graph.weight(&[6, 9]), graph.bias(&[6]));
        node("Gemm", &["x", &weight, &bias], vec![int("transB", 1)])
    });
    for batch in [1, 2, 33, 256, 600] {
        assert_agree(&format!("batch {batch}"), &model, CodecId::Sham, &[&[batch, 9]]);
    }
}

#[test]
fn what_is_added_to_a_matmul_is_its_bias_where_it_has_one_value_a_unit() {
    let shapes: [&[usize]; 3] = [&[6], &[5, 6], &[2, 5, 6]];
    for (case, shape) in shapes.into_iter().enumerate() {
        for (bias, is_absorbed) in [(&[4][..], true), (&[1], false), (&[5, 4], false)] {
            let mut graph = GraphBuilder::new();
            graph.input("x", &shape.iter().map(|&d| Some(d as i64)).collect::<Vec<_>>());
            let (weight, bias) = (graph.weight(&[6, 4]), graph.bias(bias));
            graph.node(named_node("MatMul", &["x", &weight], "products", vec![]));
            graph.node(named_node("Add", &[&bias, "products"], "sums", vec![]));
            graph.node(node("Relu", &["sums"], vec![]));
            graph.output("y");
            let model = graph.build();
            assert_agree(&format!("{shape:?}, {bias}"), &model, codec_for(case), &[shape]);

            let mut rewritten = model.clone();
            let held = |weight: &Weight| Held::Coded(Arc::new(encode(&model, weight, CodecId::Sham)));
            let mut operators = rewrite(&mut rewritten, |weight| Ok(Some(held(weight)))).unwrap();
            absorb(&mut rewritten, &mut operators);
            assert_eq!(rewritten.graph.unwrap().node.len(), if is_absorbed { 1 } else { 3 });
        }
    }
}

#[test]
fn matmul_agrees_on_either_side_for_activations_of_rank_1_to_4() {
    let shapes: [&[usize]; 4] = [&[6], &[5, 6], &[2, 5, 6], &[2, 3, 5, 6]];
    for (case, shape) in shapes.into_iter().enumerate() {
        let mut dims: Vec<_> = shape.iter().map(|&d| Some(d as i64)).collect();
        if dims.len() > 1 {
            dims[0] = None;
        }
        let right = one_node(&dims, |graph| {
            let weight = graph.weight(&[6, 4]);
            node("MatMul", &["x", &weight], vec![])
        });
        assert_agree(&format!("right, {shape:?}"), &right, codec_for(case), &[shape]);

        let features = shape[shape.len().saturating_sub(2)];
        let dims: Vec<_> = shape.iter().map(|&d| Some(d as i64)).collect();
        let left = one_node(&dims, |graph| {
            let weight = graph.weight(&[4, features]);
            node("MatMul", &[&weight, "x"], vec![])
        });
        assert_agree(&format!("left, {shape:?}"), &left, codec_for(case + 1), &[shape]);
    }
}

#[test]
fn a_weight_used_both_ways_is_stored_once() {
    let mut graph = GraphBuilder::new();
    graph.input("x", &[None, Some(6)]);
    let weight = graph.weight(&[10, 6]);
    graph.node(named_node("Gemm", &["x", &weight], "h", vec![int("transB", 1)]));
    graph.node(named_node("Relu", &["h"], "r", vec![]));
    graph.node(named_node("MatMul", &["r", &weight], "y", vec![]));
    graph.output("y");
    let model = graph.build();
    for (case, batch) in [1, 4, 70].into_iter().enumerate() {
        assert_agree(&format!("batch {batch}"), &model, codec_for(case), &[&[batch, 6]]);
    }
}
