//! A fine histogram of float32 values, whose sums are of integers.

use super::distinct::Distinct;
use super::distribution::Point;
use super::keys::value_of;

/// Low bits of a key that do not choose its cell.
const CELL_BITS: u32 = 10;

/// Low bits of a key that do not choose its page.
const PAGE_BITS: u32 = 20;

/// Cells of a page: an eighth of a binade.
const PAGE_CELLS: usize = 1 << (PAGE_BITS - CELL_BITS);

/// The cells of the histogram, in pages that exist once a value falls into them.
#[derive(Debug, Clone)]
pub(super) struct Cells(Vec<Option<Box<[Cell; PAGE_CELLS]>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    count: u64,
    /// Sum of the low bits of the keys.
    low_bits: u64,
}

impl Cells {
    #[inline]
    pub(super) fn add(&mut self, key: u32, count: u64) {
        let page = self.0[(key >> PAGE_BITS) as usize].get_or_insert_with(empty_page);
        let cell = &mut page[(key >> CELL_BITS) as usize % PAGE_CELLS];
        cell.count += count;
        cell.low_bits += u64::from(key % (1 << CELL_BITS)) * count;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            let Some(from) = from else { continue };
            let to = to.get_or_insert_with(empty_page);
            for (to, from) in to.iter_mut().zip(from.iter()) {
                to.count += from.count;
                to.low_bits += from.low_bits;
            }
        }
    }

    pub(super) fn points(&self) -> Vec<Point> {
        let pages = self.0.iter().enumerate().filter_map(|(i, page)| Some((i, page.as_deref()?)));
        let cells =
            pages.flat_map(|(i, page)| page.iter().enumerate().map(move |(j, cell)| (i * PAGE_CELLS + j, cell)));
        cells.filter(|(_, cell)| cell.count > 0).map(|(index, cell)| cell.point((index as u32) << CELL_BITS)).collect()
    }
}

impl Cell {
    /// The values of the cell whose first key is `base`: evenly spaced, since they share an exponent.
    fn point(&self, base: u32) -> Point {
        let (low, high) = (value_of(base), value_of(base + (1 << CELL_BITS) - 1));
        let spacing = f64::from(value_of(base + 1)) - f64::from(low);
        let steps = self.low_bits as f64 / self.count as f64;
        Point { value: f64::from(low) + steps * spacing, count: self.count, population: self.count, low, high }
    }
}

impl Default for Cells {
    fn default() -> Self {
        Self(vec![None; 1 << (32 - PAGE_BITS)])
    }
}

impl From<Distinct<u32>> for Cells {
    fn from(distinct: Distinct<u32>) -> Self {
        let mut cells = Self::default();
        distinct.into_counts().for_each(|(key, count)| cells.add(key, count));
        cells
    }
}

fn empty_page() -> Box<[Cell; PAGE_CELLS]> {
    Box::new([Cell::default(); PAGE_CELLS])
}
