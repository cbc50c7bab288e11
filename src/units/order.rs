//! An order in which similar units are neighbours, so that a codec finds each beside one that it can be predicted from.
//!
//! Units are chained greedily: from the one with the fewest non-zero cells to the nearest that is left, and on, by the Hamming
//! distance of their cells. No matrix of distances is held. Where all cells of all pairs are too many to compare, an evenly
//! spaced sample of cells stands for them; and beyond [`WHOLE`] units, those whose supports look alike are brought together
//! by hashing and chained in stretches.
//!
//! # Source
//! The nearest-neighbour tour of Rosenkrantz, Stearns and Lewis, "An analysis of several heuristics for the traveling
//! salesman problem", SIAM J. Comput. 6, 1977; min-wise hashing of Broder, "On the resemblance and containment of
//! documents", 1997.

use std::ops::Range;

use rayon::prelude::*;

use crate::progress::{Cancelled, Progress};

/// Most units that are chained as a whole.
const WHOLE: usize = 8192;

/// Units in a stretch where there are more.
const STRETCH: usize = 2048;

/// Comparisons of two cells that one order may take, about: a second or two.
const BUDGET: usize = 1 << 34;

/// Fewest cells that stand for a unit where it has as many.
const MIN_CELLS: usize = 64;

/// Cells are compared this many at a time: a count of them fits a byte.
const LANES: usize = 192;

/// Cells compared in one step beyond which a step is worth several threads.
const PARALLEL: usize = 1 << 18;

/// The cells of units, a byte each: 0 for zero, different bytes for different values as far as a byte can.
#[derive(Debug)]
pub struct Cells {
    units: usize,
    /// Cells that stand for a unit.
    sample: usize,
    bytes: Vec<u8>,
}

impl Cells {
    /// Room for `units` of `cells` each, of which [`Cells::sample`] are to be filled in; all zero.
    pub fn new(units: usize, cells: usize) -> Self {
        let compared = units.saturating_mul(if units > WHOLE { STRETCH } else { units }) / 2;
        let sample = cells.min((BUDGET / compared.max(1)).max(MIN_CELLS));
        Self { units, sample, bytes: vec![0; units * sample] }
    }

    /// How many cells stand for each unit.
    pub fn sample(&self) -> usize {
        self.sample
    }

    /// Sets cell `cell`, below [`Cells::sample`], of `unit`.
    ///
    /// # Panics
    /// If there is no such cell.
    pub fn set(&mut self, unit: usize, cell: usize, byte: u8) {
        assert!(cell < self.sample);
        self.bytes[unit * self.sample + cell] = byte;
    }

    fn row(&self, unit: usize) -> &[u8] {
        &self.bytes[unit * self.sample..][..self.sample]
    }

    /// Cells in which two units differ.
    fn distance(&self, a: usize, b: usize) -> u64 {
        let differ = |(x, y): (&[u8], &[u8])| x.iter().zip(y).fold(0u8, |n, (x, y)| n + u8::from(x != y));
        self.row(a).chunks(LANES).zip(self.row(b).chunks(LANES)).map(differ).map(u64::from).sum()
    }

    /// Cells that differ between neighbours, where the units stand in `order`: what a chain keeps small.
    fn length(&self, order: impl Iterator<Item = usize> + Clone) -> u64 {
        order.clone().zip(order.skip(1)).map(|(a, b)| self.distance(a, b)).sum()
    }

    /// Smallest hashes of the positions that are not zero: equal, most likely, where supports are alike.
    fn signature(&self, unit: usize) -> [u32; 4] {
        let mut least = [u32::MAX; 4];
        for position in (0u32..).zip(self.row(unit)).filter(|(_, byte)| **byte != 0).map(|(position, _)| position) {
            for (least, seed) in least.iter_mut().zip([0x9e37_79b9u32, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f]) {
                let hash = (position ^ seed).wrapping_mul(0x9e37_79b1);
                *least = (*least).min((hash ^ hash >> 15).wrapping_mul(seed | 1));
            }
        }
        least
    }
}

/// The units in an order in which similar ones are neighbours: place `i` is for unit `order[i]`. `None` where no order was
/// found in which neighbours differ in fewer cells than they do now. The same cells give the same order.
///
/// # Errors
/// [`Cancelled`], asked before every unit.
pub fn find_order(cells: &Cells, progress: &dyn Progress) -> Result<Option<Vec<u32>>, Cancelled> {
    let mut units: Vec<usize> = (0..cells.units).collect();
    let stretch = if cells.units > WHOLE { STRETCH } else { cells.units };
    if cells.units > WHOLE {
        let signatures: Vec<_> = (0..cells.units).into_par_iter().map(|unit| cells.signature(unit)).collect();
        units.sort_by_key(|&unit| signatures[unit]);
    }
    let mut order = Vec::with_capacity(cells.units);
    for start in (0..cells.units).step_by(stretch.max(1)) {
        let end = cells.units.min(start + stretch);
        chain(cells, &mut units, start..end, &mut order, progress)?;
    }
    let shorter = cells.length(order.iter().map(|&unit: &u32| unit as usize)) < cells.length(0..cells.units);
    Ok(shorter.then_some(order))
}

/// Appends the units of a stretch to `order`, each the nearest to the one before.
fn chain(
    cells: &Cells,
    units: &mut [usize],
    stretch: Range<usize>,
    order: &mut Vec<u32>,
    progress: &dyn Progress,
) -> Result<(), Cancelled> {
    let mut rest = units[stretch].to_vec();
    while !rest.is_empty() {
        progress.check()?;
        let next = match order.last() {
            Some(&last) => nearest(cells, last as usize, &rest),
            None => (0..rest.len()).min_by_key(|&i| (cells.row(rest[i]).iter().filter(|&&b| b != 0).count(), rest[i])),
        };
        // The order of what is left does not matter: ties go by the unit's number.
        let unit = rest.swap_remove(next.expect("some are left"));
        order.push(u32::try_from(unit).expect("an axis is shorter than 2^32"));
    }
    Ok(())
}

/// The place in `rest` of the unit nearest to `unit`; of several, that with the lowest number.
fn nearest(cells: &Cells, unit: usize, rest: &[usize]) -> Option<usize> {
    let distance = |(place, &other): (usize, &usize)| (cells.distance(unit, other), other, place);
    let found = match rest.len() * cells.sample {
        0..PARALLEL => rest.iter().enumerate().map(distance).min(),
        _ => rest.par_iter().enumerate().with_min_len(PARALLEL / 4 / cells.sample.max(1) + 1).map(distance).min(),
    };
    found.map(|(.., place)| place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::progress::{CancelFlag, Silent};

    fn cells(rows: &[&[u8]]) -> Cells {
        let mut cells = Cells::new(rows.len(), rows[0].len());
        for (unit, row) in rows.iter().enumerate() {
            row.iter().enumerate().for_each(|(cell, &byte)| cells.set(unit, cell, byte));
        }
        cells
    }

    #[test]
    fn similar_units_become_neighbours() {
        let cells = cells(&[&[1, 1, 1, 1], &[0, 0, 0, 2], &[1, 1, 1, 3], &[0, 0, 0, 0]]);
        // From the empty one: 1 differs in one cell, then 0 in four and 2 in four, 0 first, then 2 in one.
        assert_eq!(find_order(&cells, &Silent), Ok(Some(vec![3, 1, 0, 2])));
    }

    #[test]
    fn an_order_that_is_no_better_is_not_given() {
        assert_eq!(find_order(&cells(&[&[1, 0], &[1, 0], &[1, 0]]), &Silent), Ok(None));
        assert_eq!(find_order(&cells(&[&[7]]), &Silent), Ok(None));
        assert_eq!(find_order(&Cells::new(3, 0), &Silent), Ok(None));
    }

    #[test]
    fn units_beyond_what_is_chained_whole_are_all_there_once() {
        let units = WHOLE + 5;
        let mut cells = Cells::new(units, 64);
        // Nine kinds of units, dealt out in turns.
        for unit in 0..units {
            (0..64).for_each(|cell| cells.set(unit, cell, u8::from(cell % 9 == unit % 9)));
        }
        let order = find_order(&cells, &Silent).unwrap().unwrap();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..units as u32));
        let before = cells.length(0..units);
        let after = cells.length(order.iter().map(|&unit| unit as usize));
        assert!(after < before / 50, "{after} of {before}");
    }

    #[test]
    fn it_stops_when_asked() {
        let flag = CancelFlag::default();
        flag.cancel();
        assert_eq!(find_order(&cells(&[&[1], &[2]]), &flag), Err(Cancelled));
    }

    proptest! {
        #[test]
        fn an_order_holds_every_unit_once_and_is_shorter(
            rows in (1usize..40, 1usize..300).prop_flat_map(|(units, len)| {
                proptest::collection::vec(proptest::collection::vec(0u8..3, len), units)
            })
        ) {
            let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            let cells = cells(&rows);
            if let Some(order) = find_order(&cells, &Silent).unwrap() {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                prop_assert!(sorted.iter().copied().eq(0..rows.len() as u32));
                prop_assert!(cells.length(order.iter().map(|&u| u as usize)) < cells.length(0..rows.len()));
            }
        }
    }
}
