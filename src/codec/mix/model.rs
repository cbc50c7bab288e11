//! What is known around a cell, and how its level is predicted bit by bit.
//!
//! The cells of a chunk are coded line by line, each line place by place. A cell's *level* counts values of the codebook
//! from zero: 0 for the zero word, 1, 2, ... above it and -1, -2, ... below. It is coded as up to three things: whether it is
//! zero, its sign, and its magnitude less 1, most significant bit first. Bits that can only come out one way are not
//! coded, so every stream decodes to levels that exist.

use super::coder::Coder;
use super::contexts::{MAGNITUDE, Magnitude, SIGN, ZERO, code_magnitude, code_sign, code_zero};
use super::logistic::{LIMIT, LOGISTIC, log_odds, log2};
use super::predictor::Predictor;
use super::references::{REFERENCES, References, Vectors};

/// The cells of a chunk in the order in which they are coded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub lines: usize,
    /// Cells of a line.
    pub places: usize,
    /// Places of a channel: the positions of a convolution's kernel, otherwise 1.
    pub period: usize,
}

/// The levels that there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alphabet {
    pub has_zero: bool,
    /// Levels below zero, and above.
    pub below: u32,
    pub above: u32,
}

impl Alphabet {
    /// The level of a symbol of the codebook.
    #[inline]
    pub(super) fn level(self, symbol: u16) -> i32 {
        let level = i32::from(symbol) - self.below as i32;
        level + i32::from(!self.has_zero && level >= 0)
    }

    /// The symbol of a level that there is.
    #[inline]
    pub(super) fn symbol(self, level: i32) -> u64 {
        (self.below as i32 + level - i32::from(!self.has_zero && level > 0)) as u64
    }
}

/// What was counted of some cells.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    /// Cells that are not zero.
    pub stored: u32,
    /// Sum of their magnitudes, each at most 127.
    pub sum: u32,
    /// Those above zero less those below.
    pub balance: i32,
}

impl Tally {
    fn add(&mut self, level: i32) {
        self.stored += 1;
        self.sum = self.sum.saturating_add(level.unsigned_abs());
        self.balance += level.signum();
    }

    /// The logarithm of the mean magnitude, to base 2 in 1/256, above that of all cells, of which two are mixed in.
    #[inline]
    fn magnitude(&self, overall: &Overall) -> i32 {
        log2(scaled(self.sum).saturating_add(overall.two_cells)) - log2(scaled(self.stored) + 32) - overall.magnitude
    }
}

/// Of all cells so far.
struct Overall {
    tally: Tally,
    cells: u32,
    /// Log odds of not being zero.
    density: i32,
    /// The logarithm of the mean magnitude, to base 2 in 1/256.
    magnitude: i32,
    /// Twice the mean magnitude, in 1/16.
    two_cells: u32,
}

impl Overall {
    const NOTHING: Self =
        Self { tally: Tally { stored: 0, sum: 0, balance: 0 }, cells: 0, density: 0, magnitude: 0, two_cells: 32 };

    fn add(&mut self, level: i32) {
        self.cells += 1;
        if level != 0 {
            self.tally.add(level);
            let Tally { stored, sum, .. } = self.tally;
            self.magnitude = log2(scaled(sum) + 16) - log2(scaled(stored) + 16);
            self.two_cells = (32 * (u64::from(sum) + 1) / (u64::from(stored) + 1)) as u32;
        }
        self.density = log_odds(self.tally.stored, self.cells - self.tally.stored, (8, 8));
    }
}

/// 16 times a count, as far as that can be told.
fn scaled(count: u32) -> u32 {
    16 * count.min(1 << 27)
}

/// The line that is being coded.
struct Line {
    number: usize,
    tally: Tally,
    references: References,
    /// The place at which references are searched next.
    next_search: usize,
    /// The kernel of the current channel.
    kernel: Tally,
}

/// Predicts and learns the levels of a chunk.
pub(super) struct Model {
    grid: Grid,
    alphabet: Alphabet,
    /// Places of a row of a square kernel.
    kernel_row: usize,
    magnitude_bits: [u32; 2],
    across: Vectors,
    down: Vectors,
    overall: Overall,
    of_places: Vec<Tally>,
    of_channels: Vec<Tally>,
    of_positions: Vec<Tally>,
    place_references: Vec<References>,
    /// The line at which the references of all places are searched next.
    next_search: usize,
    line: Line,
    zero: Predictor,
    sign: Predictor,
    magnitude: Predictor,
}

/// The first place, or line, at which references are searched.
const FIRST_SEARCH: [usize; 2] = [64, 16];

impl Model {
    pub(super) fn new(grid: Grid, alphabet: Alphabet) -> Self {
        let Grid { lines, places, period } = grid;
        let cells = (lines * places).max(1);
        let table_bits = (cells.ilog2() + 2).clamp(10, 16);
        let bits_for = |levels: u32| 32 - levels.saturating_sub(1).leading_zeros();
        let root = period.isqrt();
        Self {
            grid,
            alphabet,
            kernel_row: if period > 1 && root * root == period { root } else { 2 },
            magnitude_bits: [bits_for(alphabet.above), bits_for(alphabet.below)],
            across: Vectors::new(lines, places),
            // Without a search of places they are not needed, and take room for each.
            down: if lines > FIRST_SEARCH[1] { Vectors::new(places, lines) } else { Vectors::new(0, 0) },
            overall: Overall::NOTHING,
            of_places: vec![Tally::default(); places],
            of_channels: vec![Tally::default(); places.div_ceil(period)],
            of_positions: vec![Tally::default(); period],
            place_references: Vec::new(),
            next_search: FIRST_SEARCH[1],
            line: Line {
                number: 0,
                tally: Tally::default(),
                references: References::NONE,
                next_search: FIRST_SEARCH[0],
                kernel: Tally::default(),
            },
            zero: Predictor::new(&ZERO.with_table_bits(table_bits)),
            sign: Predictor::new(&SIGN.with_table_bits(table_bits)),
            magnitude: Predictor::new(&MAGNITUDE.with_table_bits(table_bits)),
        }
    }

    /// The predictors of zeros, signs and magnitudes.
    #[allow(dead_code, reason = "benches/mix_priors.rs makes the priors by it")]
    pub(super) fn predictors(&self) -> [&Predictor; 3] {
        [&self.zero, &self.sign, &self.magnitude]
    }

    /// Codes the next line. A writer gives the level of each place; a reader gives anything, and takes what it is told.
    pub(super) fn code_line<C: Coder>(
        &mut self,
        coder: &mut C,
        number: usize,
        mut level: impl FnMut(usize, Option<i32>) -> i32,
    ) {
        self.begin_line(number);
        for place in 0..self.grid.places {
            let coded = self.code_cell(coder, place, level(place, None));
            level(place, Some(coded));
        }
    }

    fn begin_line(&mut self, number: usize) {
        if number == self.next_search {
            self.search_for_places(number);
            self.next_search = number + ((number / 2) & !7).max(FIRST_SEARCH[1]);
        }
        let mut references = References { count: number.min(REFERENCES), ..References::NONE };
        (0..references.count).for_each(|i| references.vectors[i] = (number - 1 - i) as u32);
        self.line = Line {
            number,
            tally: Tally::default(),
            references,
            next_search: FIRST_SEARCH[0],
            kernel: Tally::default(),
        };
    }

    fn search_for_places(&mut self, lines: usize) {
        self.place_references.resize(self.grid.places, References::NONE);
        for place in 1..self.grid.places {
            self.place_references[place] = match self.down.stored[place] {
                0 => References::NONE,
                stored => {
                    let candidates = self.down.first_candidate(place)..place;
                    self.down.search(place, candidates, lines, true).with_distance_to(stored)
                }
            };
        }
    }

    fn search_for_line(&mut self, place: usize) {
        let Line { number, ref mut references, .. } = self.line;
        if self.line.tally.stored > 0 {
            let candidates = self.across.first_candidate(number)..number;
            *references = self.across.search(number, candidates, place, false).with_distance_to(self.line.tally.stored);
        }
        self.line.next_search = place + ((place / 2) & !63).max(FIRST_SEARCH[0]);
    }

    fn code_cell<C: Coder>(&mut self, coder: &mut C, place: usize, level: i32) -> i32 {
        if place == self.line.next_search && self.line.number > 0 {
            self.search_for_line(place);
        }
        if place.is_multiple_of(self.grid.period) {
            self.line.kernel = Tally::default();
        }
        let level = self.code_level(coder, place, level);
        self.overall.add(clamp(level));
        if level != 0 {
            self.note(place, level);
        }
        level
    }

    fn code_level<C: Coder>(&mut self, coder: &mut C, place: usize, level: i32) -> i32 {
        let Alphabet { has_zero, below, above } = self.alphabet;
        if below + above == 0 {
            return 0;
        }
        let around = Around::of(self, place);
        if has_zero && !code_zero(&mut self.zero, coder, &around, level != 0) {
            return 0;
        }
        let is_negative = match (below, above) {
            (0, _) => false,
            (_, 0) => true,
            _ => code_sign(&mut self.sign, coder, &around, level < 0),
        };
        let (bits, levels) = (self.magnitude_bits[usize::from(is_negative)], if is_negative { below } else { above });
        let rest = level.unsigned_abs().wrapping_sub(1);
        let rest = code_magnitude(&mut self.magnitude, coder, &around, Magnitude { is_negative, bits, levels, rest });
        let magnitude = 1 + rest as i32;
        if is_negative { -magnitude } else { magnitude }
    }

    fn note(&mut self, place: usize, level: i32) {
        let number = self.line.number;
        self.across.set(number, place, level);
        if self.grid.lines > FIRST_SEARCH[1] {
            self.down.set(place, number, level);
        }
        let level = clamp(level);
        let period = self.grid.period;
        for tally in [
            &mut self.line.tally,
            &mut self.line.kernel,
            &mut self.of_places[place],
            &mut self.of_channels[place / period],
            &mut self.of_positions[place % period],
        ] {
            tally.add(level);
        }
    }
}

fn clamp(level: i32) -> i32 {
    level.clamp(-127, 127)
}

/// What is known around a cell. Levels of cells outside the chunk, and of places not yet coded, are 0.
pub(super) struct Around {
    pub line: usize,
    pub place: usize,
    /// Place in the kernel.
    pub position: usize,
    /// 1, 2 and 3 places before.
    pub left: [i32; 3],
    /// 1, 2 and 3 lines before.
    pub above: [i32; 3],
    pub above_left: i32,
    pub above_right: i32,
    /// A row of the kernel before; without a kernel, two places before.
    pub kernel_above: i32,
    /// The same position of the channel before, of the second one before, and of the channel before in the line before; without a kernel, 4 and 5
    /// places before, and 4 lines before.
    pub channel_before: [i32; 3],
    /// In the lines and places that this line and this place refer to.
    pub lines: [i32; REFERENCES],
    pub places: [i32; REFERENCES],
    /// Where the first line and the first place, the first and the second, and the second and the first cross.
    pub crossings: [i32; 3],
    pub distances: [u32; 2],
    pub forecasts: [i32; 2],
    /// Log odds of not being zero: overall; of the line, place, kernel, channel and position so far.
    pub density: i32,
    pub line_density: i32,
    pub place_density: i32,
    pub kernel_density: i32,
    pub channel_density: i32,
    pub position_density: i32,
    /// Mean magnitudes as [`Tally::magnitude`] gives them.
    pub line_magnitude: i32,
    pub place_magnitude: i32,
    pub kernel_magnitude: i32,
    pub channel_magnitude: i32,
    pub magnitude: i32,
    pub kernel: Tally,
    pub line_balance: (i32, u32),
    pub place_balance: (i32, u32),
}

impl Around {
    #[inline]
    fn of(model: &Model, place: usize) -> Self {
        let Model { grid, line, across, overall, .. } = model;
        let number = line.number;
        let left = |back: usize| if back <= place { across.level(number, place - back) } else { 0 };
        let above = |back: usize, place: usize| match number.checked_sub(back) {
            Some(line) if place < grid.places => across.level(line, place),
            _ => 0,
        };
        let period = grid.period;
        let channel_before = match period {
            1 => [left(4), left(5), above(4, place)],
            _ => [left(period), left(2 * period), above(1, place.wrapping_sub(period))],
        };
        let of_line = &line.references;
        let of_place = model.place_references.get(place).unwrap_or(&References::NONE);
        let in_line = |i: usize, place: usize| {
            if i < of_line.count { across.level(of_line.vectors[i] as usize, place) } else { 0 }
        };
        let lines = std::array::from_fn(|i| in_line(i, place));
        let places = std::array::from_fn(|i| {
            if i < of_place.count { across.level(number, of_place.vectors[i] as usize) } else { 0 }
        });
        let crossing = |line: usize, place: usize| match place < of_place.count {
            true => in_line(line, of_place.vectors[place] as usize),
            false => 0,
        };
        let density = overall.density;
        let prior = LOGISTIC.squash(density) as u32;
        let odds = |stored: u32, cells: usize, weight: u32| {
            let yes = ((prior * weight) >> 8).max(1);
            log_odds(stored, cells as u32 - stored, (yes, (256 * weight - yes).max(1)))
        };
        let position = place % period;
        let [at_place, at_channel, at_position] =
            [&model.of_places[place], &model.of_channels[place / period], &model.of_positions[position]];
        let has_kernel = period > 1;
        let of_kernel = |value: i32, otherwise: i32| if has_kernel { value } else { otherwise };
        Self {
            line: number,
            place,
            position,
            left: [left(1), left(2), left(3)],
            above: [above(1, place), above(2, place), above(3, place)],
            above_left: above(1, place.wrapping_sub(1)),
            above_right: above(1, place + 1),
            kernel_above: left(model.kernel_row),
            channel_before,
            forecasts: [of_line.forecast(&lines), of_place.forecast(&places)],
            crossings: [crossing(0, 0), crossing(0, 1), crossing(1, 0)],
            lines,
            places,
            distances: [of_line.distance, of_place.distance],
            density,
            line_density: odds(line.tally.stored, place, 12),
            place_density: odds(at_place.stored, number, 8),
            kernel_density: of_kernel(odds(line.kernel.stored, position, 4), density),
            channel_density: of_kernel(odds(at_channel.stored, number * period + position, 16), density),
            position_density: of_kernel(
                odds(at_position.stored, number * (grid.places / period) + place / period, 32),
                density,
            ),
            line_magnitude: line.tally.magnitude(overall),
            place_magnitude: at_place.magnitude(overall),
            kernel_magnitude: of_kernel(line.kernel.magnitude(overall), 0),
            channel_magnitude: of_kernel(at_channel.magnitude(overall), 0),
            magnitude: overall.magnitude,
            kernel: line.kernel,
            line_balance: (line.tally.balance, line.tally.stored),
            place_balance: (at_place.balance, at_place.stored),
        }
    }

    /// Log odds of not being zero, by the line and the place together.
    pub(super) fn expected(&self) -> i32 {
        (self.line_density + self.place_density - self.density).clamp(-LIMIT, LIMIT)
    }

    /// A level's magnitude beside the mean, as a feature; 0 for zero.
    #[inline]
    pub(super) fn relative(&self, level: i32) -> i32 {
        match level {
            0 => 0,
            _ => (256 + (log2(level.unsigned_abs()) - self.magnitude) / 2).clamp(64, 1023),
        }
    }

    /// A sum of magnitudes beside the mean, in 32 classes.
    #[inline]
    pub(super) fn class_of_sum(&self, sum: u32) -> u32 {
        match sum {
            0 => 0,
            _ => ((log2(sum) - self.magnitude + 1024) / 96 + 1).clamp(1, 31) as u32,
        }
    }
}
