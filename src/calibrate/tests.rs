//! The solver against the definition, on problems small enough for it.

use super::*;
use crate::algebra::invert;
use crate::progress::Silent;
use crate::prune::{Keep, Pattern, survivors};
use crate::quantize::share_exact;
use crate::tensor::{FloatData, FloatType, LayerContext, Statistics, StatisticsBuilder};

/// A layer with correlated inputs: weights, and statistics of `columns` columns.
fn layer(rows: usize, cols: usize, groups: usize, seed: u64) -> (Vec<f32>, Statistics) {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut number = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32) * 2.0 - 1.0
    };
    let columns = 3 * cols;
    let mut block = vec![0.0; groups * cols * columns];
    for column in 0..columns {
        for group in 0..groups {
            let mut last = number();
            for col in 0..cols {
                last = 0.7 * last + number();
                block[(group * cols + col) * columns + column] = last + 0.3;
            }
        }
    }
    let mut builder = StatisticsBuilder::new(groups, cols);
    builder.add(&block, columns);
    ((0..rows * cols).map(|_| number()).collect(), builder.finish())
}

fn problem(rows: usize, cols: usize, groups: usize, seed: u64) -> (Vec<f32>, Problem) {
    let (weights, statistics) = layer(rows, cols, groups, seed);
    let problem = Problem::new(&LayerContext::new("w", rows, cols, &weights), &statistics, 0.01, true);
    (weights, problem)
}

/// Removes weights of one row one at a time, each with the optimal brain surgeon's update by an explicit inverse.
fn surgeon(weights: &[f32], hessian: &[f64], removed: &[usize]) -> Vec<f64> {
    let n = weights.len();
    let mut w: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
    let mut left: Vec<usize> = (0..n).collect();
    for &q in removed {
        let matrix: Vec<f64> =
            left.iter().flat_map(|&i| left.iter().map(move |&j| (i, j))).map(|(i, j)| hessian[i * n + j]).collect();
        let inverse = invert(matrix, left.len(), &Silent).unwrap().unwrap();
        let at = left.iter().position(|&i| i == q).unwrap();
        let factor = w[q] / inverse[at * left.len() + at];
        let updates: Vec<f64> = (0..left.len()).map(|i| factor * inverse[i * left.len() + at]).collect();
        left.iter().zip(updates).for_each(|(&i, update)| w[i] -= update);
        w[q] = 0.0;
        left.remove(at);
    }
    w
}

#[test]
fn survivors_stand_where_the_updates_of_the_surgeon_lead() {
    let (rows, cols) = (3, 8);
    let (weights, problem) = problem(rows, cols, 1, 5);
    let removed = [6usize, 1, 3];
    let kept: Vec<bool> = (0..rows * cols).map(|i| !removed.contains(&(i % cols))).collect();
    let found = problem.refit_mask(&kept, &Silent).unwrap();
    let group = &problem.groups[0];
    let hessian: Vec<f64> =
        (0..cols * cols).map(|i| group.hessian[i] * group.scale[i / cols] * group.scale[i % cols]).collect();
    for (row, found) in found.chunks_exact(cols).enumerate() {
        let expected = surgeon(&weights[row * cols..(row + 1) * cols], &hessian, &removed);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} against {expected}");
        }
    }
}

#[test]
fn the_mask_is_nearly_the_best_of_all_masks() {
    let (cols, count) = (10, 4);
    for seed in 0..6 {
        let (_, problem) = problem(1, cols, 1, seed);
        let found = problem.relative_error(&problem.solve(Keep::Layer(count), &Silent).unwrap());
        let masks = (0u32..1 << cols).filter(|mask| mask.count_ones() as usize == count);
        let errors = masks.map(|mask| {
            let kept: Vec<bool> = (0..cols).map(|i| mask >> i & 1 == 1).collect();
            problem.relative_error(&problem.refit_mask(&kept, &Silent).unwrap())
        });
        let best = errors.fold(f64::INFINITY, f64::min);
        assert!(found <= 1.5 * best + 1e-9, "{found} against {best}, seed {seed}");
    }
}

#[test]
fn the_error_is_far_below_that_of_the_largest_weights() {
    let (weights, problem) = problem(20, 60, 2, 9);
    let keep = Keep::Layer(240);
    let found = problem.relative_error(&problem.solve(keep, &Silent).unwrap());
    let kept = keep.select(&weights, 60);
    let largest: Vec<f32> = weights.iter().zip(&kept).map(|(&w, &kept)| if kept { w } else { 0.0 }).collect();
    let refitted = problem.relative_error(&problem.refit_mask(&kept, &Silent).unwrap());
    assert!(refitted < problem.relative_error(&largest));
    assert!(found < 0.8 * refitted, "{found} against {refitted}");
}

#[test]
fn exactly_as_many_survive_in_every_scope() {
    let (rows, cols) = (12, 24);
    let (weights, problem) = problem(rows, cols, 3, 2);
    let zeros = |weights: &[f32]| weights.iter().filter(|&&w| w == 0.0).count();
    let found = problem.solve(Keep::Layer(100), &Silent).unwrap();
    assert_eq!(zeros(&found), rows * cols - 100);
    let found = problem.solve(Keep::Row(5), &Silent).unwrap();
    assert!(found.chunks(cols).all(|row| zeros(row) == cols - 5));
    let found = problem.solve(Keep::Pattern(Pattern::new(2, 4).unwrap()), &Silent).unwrap();
    assert!(found.chunks(4).all(|four| zeros(four) == 2));
    let all = problem.solve(Keep::Layer(rows * cols), &Silent).unwrap();
    assert!(all.iter().zip(&weights).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()));
}

#[test]
fn curves_rise_and_end_above_what_a_solution_leaves() {
    let (_, problem) = problem(16, 40, 1, 4);
    let curve = problem.curve(&Silent).unwrap();
    assert!(curve.errors().windows(2).all(|pair| pair[0] <= pair[1]));
    let solved = problem.relative_error(&problem.solve(Keep::Layer(survivors(640, 0.9)), &Silent).unwrap());
    assert!((solved..3.0 * solved).contains(&curve.at(0.9)), "{} against {solved}", curve.at(0.9));
}

#[test]
fn one_thread_and_three_give_the_same_bits() {
    let solve = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| problem(70, 90, 1, 8).1.solve(Keep::Layer(900), &Silent).unwrap())
    };
    let bits = |weights: Vec<f32>| weights.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(solve(1)), bits(solve(3)));
}

#[test]
fn inputs_that_are_always_zero_do_no_harm() {
    let mut builder = StatisticsBuilder::new(1, 3);
    builder.add(&[1.0, -1.0, 0.0, 0.0, 2.0, 0.5], 2);
    let statistics = builder.finish();
    let weights = [1.0, 5.0, 2.0];
    let problem = Problem::new(&LayerContext::new("w", 1, 3, &weights), &statistics, 0.01, false);
    let found = problem.solve(Keep::Layer(2), &Silent).unwrap();
    assert_eq!(found[1], 0.0, "a weight of no effect goes first");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    #[test]
    fn feedback_is_never_worse_than_the_nearest_values(
        rows in 1usize..8, cols in 2usize..40, groups in 1usize..3, step in 0.05f64..1.5, seed in 0u64..1000,
    ) {
        let rows = rows * groups;
        let (weights, problem) = problem(rows, cols, groups, seed);
        let multiples: Vec<f32> =
            weights.iter().map(|&w| ((f64::from(w) / step).round() * step) as f32 + 0.0).collect();
        let values = FloatData::F32(multiples.clone());
        let nearest = share_exact((rows, cols), FloatType::F32, values, &Silent).unwrap();
        let found = problem.descend(nearest, &Silent).unwrap();
        let found: Vec<f32> = (0..rows * cols).map(|i| found.value(i) as f32).collect();
        proptest::prop_assert!(found.iter().zip(&multiples).all(|(a, b)| (*a == 0.0) == (*b == 0.0)));
        let (after, before) = (problem.relative_error(&found), problem.relative_error(&multiples));
        proptest::prop_assert!(after <= before * (1.0 + 1e-6) + 1e-12, "{} after {}", after, before);
    }
}
