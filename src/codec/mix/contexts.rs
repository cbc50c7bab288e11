//! The contexts, features and weight sets by which zeros, signs and magnitudes are predicted.

use super::coder::Coder;
use super::logistic::LIMIT;
use super::model::Around;
use super::predictor::{Design, Predictor, Query};
use super::priors;

/// How zeros are predicted.
pub(super) const ZERO: Design = Design {
    contexts: 21,
    table_bits: 16,
    limit: 250,
    sets: [81, 96, 64],
    selections: 2,
    rate: 18,
    refiners: &[1024, 4096],
    prior: &priors::ZERO,
};

/// How signs are predicted.
pub(super) const SIGN: Design = Design {
    contexts: 9,
    table_bits: 16,
    limit: 1000,
    sets: [27, 9, 9],
    selections: 1,
    rate: 45,
    refiners: &[729],
    prior: &priors::SIGN,
};

/// How the bits of magnitudes are predicted.
pub(super) const MAGNITUDE: Design = Design {
    contexts: 14,
    table_bits: 16,
    limit: 1000,
    sets: [16, 64, 1024],
    selections: 1,
    rate: 45,
    refiners: &[4096],
    prior: &priors::MAGNITUDE,
};

/// Codes whether a cell is other than zero.
pub(super) fn code_zero<C: Coder>(predictor: &mut Predictor, coder: &mut C, around: &Around, bit: bool) -> bool {
    let Around { left, above, lines, places, .. } = around;
    let expected = around.expected();
    let [by_line, by_place, by_both] =
        [around.line_density, around.place_density, expected].map(|odds| ((odds + LIMIT) / 192) as u32);
    let stored_lines = flags(lines);
    let stored_places = flags(places);
    let corner = flag(around.crossings[0]);
    let corners = flags(&around.crossings);
    let [line_distance, place_distance] = around.distances;
    let position = around.position as u32;
    let near = [left[0], above[0], left[1], above[1], around.above_left, around.above_right, left[2], above[2]];
    let near_stored = flags(&near).count_ones();
    let near_sum: u32 =
        near.iter().enumerate().map(|(i, level)| level.unsigned_abs() / if i < 2 { 1 } else { 2 }).sum();
    let [line_forecast, place_forecast] = around.forecasts;
    let both = (line_forecast + place_forecast) / 2;
    let first = flag(lines[0]) | flag(places[0]) << 1;
    let [before, before_2, before_above] = around.channel_before.map(flag);
    let kernel_above = flag(around.kernel_above);
    let contexts = [
        by_line << 6 | by_place,
        by_both,
        stored_places << 4 | place_distance,
        stored_lines << 4 | line_distance,
        (stored_lines & 15) << 4 | (stored_places & 15) | (by_both / 2) << 8,
        first
            | corners << 2
            | flag(lines[1]) << 5
            | flag(places[1]) << 6
            | (place_distance / 2) << 7
            | (line_distance / 2) << 10,
        stored_places.count_ones() << 8 | stored_lines.count_ones() << 4 | corner,
        signed_class(left[0]) << 6 | signed_class(above[0]),
        near_stored << 6 | by_line,
        near_stored << 6 | by_place,
        before
            | before_2 << 1
            | before_above << 2
            | flag(left[0]) << 3
            | flag(above[0]) << 4
            | kernel_above << 5
            | position << 6,
        by_line << 12 | magnitude_class(around.line_magnitude) << 6 | (by_place / 2),
        by_place << 12 | magnitude_class(around.place_magnitude) << 6 | (by_line / 2),
        around.class_of_sum(near_sum) << 6 | by_both,
        hash(around.place as u32, first),
        hash(around.line as u32, first),
        around.kernel.stored.min(7) << 12 | position << 2 | flag(left[0]) | kernel_above << 1,
        around.class_of_sum(around.kernel.sum) << 6 | by_both,
        (forecast_class(line_forecast) >> 1) << 8 | forecast_class(place_forecast) >> 1,
        forecast_class(both) << 6 | by_both,
        (forecast_class(line_forecast) >> 1) << 8 | first | corner << 2 | forecast_class(place_forecast) >> 3 << 3,
    ];
    let features = [
        256,
        expected,
        around.line_density,
        around.place_density,
        around.kernel_density,
        around.channel_density,
        around.position_density,
        around.relative(left[0]),
        around.relative(around.kernel_above),
        around.relative(above[0]),
        around.relative(around.channel_before[0]),
        64 * (stored_lines.count_ones() + stored_places.count_ones()) as i32,
        8 * line_forecast.abs(),
        8 * place_forecast.abs(),
        8 * both.abs(),
    ];
    let third = |count: u32| u32::from(count > 2) + u32::from(count > 4);
    let by_references = (stored_lines & 3).count_ones()
        + 3 * (stored_places & 3).count_ones()
        + 9 * third(stored_lines.count_ones())
        + 27 * third(stored_places.count_ones());
    let age = u32::from(around.line >= 16) + u32::from(around.line >= 64);
    let query = Query {
        contexts: &contexts,
        features: &features,
        sets: [
            by_references as usize,
            (by_both.min(31) + 32 * age) as usize,
            (8 * forecast_size(line_forecast) + forecast_size(place_forecast)) as usize,
        ],
        selection: flag(lines[0]) as usize,
        refine: &[(by_both.min(31) << 5 | first | corner << 2) as usize, (stored_lines << 6 | stored_places) as usize],
    };
    predictor.code(coder, &query, bit)
}

/// Codes whether a cell is below zero.
pub(super) fn code_sign<C: Coder>(predictor: &mut Predictor, coder: &mut C, around: &Around, bit: bool) -> bool {
    let Around { left, above, lines, places, .. } = around;
    let [line_forecast, place_forecast] = around.forecasts;
    let kernel_balance = around.kernel.balance;
    let corner = around.crossings[0];
    let references = thirds(&[lines[0], lines[1], lines[2], places[0], places[1], places[2]]);
    let contexts = [
        0,
        (around.place_balance.0.clamp(-8, 8) + 8) as u32 * 17 + (around.line_balance.0.clamp(-8, 8) + 8) as u32,
        around.place as u32,
        around.line as u32,
        references,
        thirds(&[left[0], around.kernel_above, above[0], around.channel_before[0]])
            + 81 * (kernel_balance.clamp(-3, 3) + 3) as u32,
        thirds(&[left[0], left[1], above[0], above[1], around.above_left, around.above_right]),
        (around.position as u32) << 6 | signed_class(left[0]),
        forecast_level(line_forecast) << 7 | forecast_level(place_forecast),
    ];
    let balance =
        |(balance, stored): (i32, u32)| -512 * balance.clamp(-1 << 20, 1 << 20) / (stored.min(1 << 20) as i32 + 4);
    let features = [
        256,
        -256 * left[0].signum(),
        -256 * around.kernel_above.signum(),
        -256 * above[0].signum(),
        -256 * lines[0].signum(),
        -256 * places[0].signum(),
        -256 * lines[0].signum() * places[0].signum() * corner.signum(),
        balance(around.place_balance),
        balance(around.line_balance),
        -128 * kernel_balance,
        -8 * line_forecast,
        -8 * place_forecast,
    ];
    let query = Query {
        contexts: &contexts,
        features: &features,
        sets: [
            thirds(&[lines[0], places[0], corner]) as usize,
            thirds(&[left[0], around.kernel_above]) as usize,
            thirds(&[lines[1], places[1]]) as usize,
        ],
        selection: 0,
        refine: &[references as usize],
    };
    predictor.code(coder, &query, bit)
}

/// The magnitude of a level, less 1.
pub(super) struct Magnitude {
    pub is_negative: bool,
    /// As many as the largest needs.
    pub bits: u32,
    /// Levels on this side of zero.
    pub levels: u32,
    /// What a writer codes.
    pub rest: u32,
}

/// Codes the magnitude of a level, less 1, from the top bit down. A bit that would lead beyond the last level is 0.
pub(super) fn code_magnitude<C: Coder>(
    predictor: &mut Predictor,
    coder: &mut C,
    around: &Around,
    magnitude: Magnitude,
) -> u32 {
    let Around { left, above, lines, places, .. } = around;
    let side = u32::from(magnitude.is_negative);
    let [line_forecast, place_forecast] = around.forecasts;
    let both = (line_forecast + place_forecast) / 2;
    let [line_class, place_class] = [around.line_magnitude, around.place_magnitude].map(magnitude_class);
    let pair = |a: i32, b: i32| (a + 512) as u32 * 1031 + (b + 512) as u32;
    let expected = around.expected();
    // Those of all bits: the first two are told apart by the bits so far alone, the others by the sign too.
    let of_cell = [
        signed_class(left[0]) << 6 | signed_class(above[0]),
        magnitude_class(around.kernel_magnitude) << 6 | magnitude_class(around.channel_magnitude),
        0,
        line_class << 6 | place_class,
        place_class << 3 | 1,
        pair(lines[0], places[0]),
        pair(places[0], places[1]),
        pair(lines[0], lines[1]),
        around.place as u32,
        around.line as u32,
        (around.position as u32) << 8 | signed_class(left[0]),
        forecast_level(line_forecast * 2 / 3) << 7 | forecast_level(place_forecast * 2 / 3),
        forecast_level(both),
        (forecast_level(both) << 9) ^ pair(lines[0], places[0]),
    ];
    let features = [
        256,
        2 * around.line_magnitude,
        2 * around.place_magnitude,
        2 * around.kernel_magnitude,
        2 * around.channel_magnitude,
        around.relative(lines[0]),
        around.relative(places[0]),
        around.relative(left[0]),
        expected - around.density,
        4 * line_forecast.abs(),
        4 * place_forecast.abs(),
    ];
    let near = flag(lines[0]) | flag(places[0]) << 1 | flag(left[0]) << 2;
    let mut prefix = 1;
    for bit in 0..magnitude.bits {
        let below = magnitude.bits - 1 - bit;
        let so_far = (prefix << (below + 1)) - (1 << magnitude.bits);
        if so_far + (1 << below) >= magnitude.levels {
            prefix <<= 1;
            continue;
        }
        let node = prefix << 1 | side;
        let contexts: [u32; MAGNITUDE.contexts] =
            std::array::from_fn(|i| hash(if i < 2 { prefix } else { node }, of_cell[i]));
        let query = Query {
            contexts: &contexts,
            features: &features,
            sets: [bit as usize, (8 * near + bit.min(7)) as usize, if node < 1024 { node as usize } else { 0 }],
            selection: 0,
            refine: &[(node & 4095) as usize],
        };
        let is_set = predictor.code(coder, &query, magnitude.rest >> below & 1 == 1);
        prefix = prefix << 1 | u32::from(is_set);
    }
    prefix - (1 << magnitude.bits)
}

fn flag(level: i32) -> u32 {
    u32::from(level != 0)
}

/// Which of `levels` are not zero, a bit each.
fn flags(levels: &[i32]) -> u32 {
    levels.iter().rev().fold(0, |flags, &level| flags << 1 | flag(level))
}

/// Whether each of `levels` is zero, above or below, as one number.
fn thirds(levels: &[i32]) -> u32 {
    let third = |level: i32| {
        if level > 0 {
            1
        } else if level < 0 {
            2
        } else {
            0
        }
    };
    levels.iter().rev().fold(0, |sum, &level| 3 * sum + third(level))
}

/// The sign and the size of a level, in less than 64 classes.
fn signed_class(level: i32) -> u32 {
    let size = level.unsigned_abs();
    let class = if size < 8 { size } else { 3 * size.ilog2() - 1 + (size >> (size.ilog2() - 1) & 1) };
    class.min(31) << 1 | u32::from(level < 0)
}

/// A mean magnitude as [`super::model`] gives them, in 32 classes.
fn magnitude_class(magnitude: i32) -> u32 {
    (magnitude / 48 + 16).clamp(0, 31) as u32
}

/// A forecast, finest near zero, in 64 classes: the lowest bit is its sign.
fn forecast_class(forecast: i32) -> u32 {
    let size = forecast.unsigned_abs();
    let class = if size < 32 { size / 2 } else { (4 * size.ilog2() + (size >> (size.ilog2() - 2) & 3)).min(35) - 4 };
    class << 1 | u32::from(forecast < 0)
}

/// A forecast to the nearest half of a level, in 128 classes.
fn forecast_level(forecast: i32) -> u32 {
    (((forecast + 4) >> 3).clamp(-64, 63) & 127) as u32
}

/// The size of a forecast in 8 classes.
fn forecast_size(forecast: i32) -> u32 {
    [2, 5, 8, 12, 16, 24, 40].iter().filter(|&&from| forecast.abs() >= from).count() as u32
}

fn hash(a: u32, b: u32) -> u32 {
    (a.wrapping_mul(0x2545_f491) ^ b).wrapping_mul(0x9e37_79b1) ^ a >> 3
}
