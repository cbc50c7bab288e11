//! rANS: gaps between the cells that are not zero and their symbols, or all symbols, coded with interleaved asymmetric
//! numeral systems. Built to be decoded inside a product.
//!
//! # Format
//! The *grid* of a block is the cells that are coded, row-major: those of its rows that are no copies and of the columns that
//! are live ([`grid`]). An *entry* is a cell of the grid that is stored: all of them, or those that hold no zero. Its *gap* is
//! the number of cells of the grid between it and the entry before, or the start of the grid; its *symbol* has at most 8
//! bits in a class, and `max(0, ceil(log2 k) - 8)` low bits that follow the class as they are.
//!
//! | shared part | length |
//! |---|---|
//! | bits 0-2: log2 of the lanes, at most 5; bit 3: all cells are entries; bit 4: live columns; bit 5: copies; bits 6-7: 0 | 1 byte |
//! | live columns ([`grid`]) | only with bit 4 |
//! | one bit string: model ([`model`]) of the gaps, only without bit 3; model of the classes of symbols | |
//!
//! | block section | length |
//! |---|---|
//! | copies ([`grid`]) | only with bit 5 |
//! | number of entries | varint; only without bit 3 |
//! | states of the lanes ([`stream`]), at least 2^16 | 4 bytes each; as many as lanes, or entries where those are fewer |
//! | words | 2 bytes each, in the order in which they are read |
//! | bits that follow classes: entry by entry those of the gap ([`gap`]), then those of the symbol | a bit string, last byte first |
//!
//! # Source
//! Duda, "Asymmetric numeral systems", arXiv:1311.2540; Giesen, "Interleaved entropy coders", arXiv:1402.3392.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod encode;
mod gap;
mod grid;
mod model;
mod product;
mod stream;

use std::ops::Range;

use super::bits::BitReader;
use super::ints::take_varint;
use super::visitors::{Count, Inputs};
use super::{Codec, CodecId, DecodeError, EncodeError, Head, Visitor, Words};
use crate::tensor::Matrix;
pub(super) use encode::Plan;
use grid::{Copies, Cursor};
use model::{Model, Table};
use stream::{BATCH, Batch, Decoder, MAX_LANES};

/// All cells of the grid are entries.
const ALL_CELLS: u8 = 1 << 3;
/// The live columns are listed.
const LIVE: u8 = 1 << 4;
/// Blocks say which rows are copies.
const COPIES: u8 = 1 << 5;
/// The bits of the log of the lanes.
const LANES: u8 = 7;

/// See the module.
#[derive(Debug)]
pub(super) struct Rans {
    tables: Tables,
}

/// What all blocks share.
#[derive(Debug)]
struct Tables {
    lanes: usize,
    /// None where all cells are entries.
    gaps: Option<Table>,
    symbols: Table,
    /// Bits of a symbol that are not in its class.
    low_bits: u32,
    /// The live columns; none if all are.
    live: Option<Vec<u32>>,
    has_copies: bool,
}

/// A block, its entries not yet decoded.
struct Block<'a> {
    /// None if no row is one.
    copies: Option<Copies>,
    /// Rows that are no copies.
    distinct: usize,
    entries: usize,
    cursor: Cursor,
    decoder: Decoder<'a>,
}

impl Codec for Rans {
    type Plan = Plan;

    fn plan(matrix: &Matrix, head: &Head) -> Result<Plan, EncodeError> {
        Plan::of(matrix, head)
    }

    fn write_shared(plan: &Plan, _head: &Head, out: &mut Vec<u8>) {
        plan.write_shared(out);
    }

    fn write_block(plan: &Plan, matrix: &Matrix, _head: &Head, rows: Range<usize>) -> Vec<u8> {
        plan.write_block(matrix, rows)
    }

    fn read_shared(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let Words::Symbols(codebook) = &head.words else {
            return Err(DecodeError::NeedsCodebook { codec: CodecId::Rans });
        };
        Ok(Self { tables: Tables::read(head.cols, codebook.len(), input)? })
    }

    fn visit_block<V: Visitor>(
        &self,
        head: &Head,
        block: &[u8],
        rows: Range<usize>,
        visitor: &mut V,
    ) -> Result<(), DecodeError> {
        let Block { copies, cursor, decoder, .. } = self.tables.open(head, block, rows.len())?;
        let live = self.tables.live.as_deref();
        let copies = copies.map(|copies| copies.by_number());
        let zero = head.zero_word();
        if self.tables.gaps.is_none() && self.tables.low_bits == 0 && live.is_none() && copies.is_none() {
            return walk_all(head.cols, decoder, |row, col, symbols| visitor.run(rows.start + row, col, symbols, zero));
        }
        self.tables.walk(head, cursor, decoder, |row, col, word| {
            if Some(word) == zero {
                return;
            }
            let col = live.map_or(col, |live| live[col] as usize);
            match &copies {
                None => visitor.cell(rows.start + row, col, word),
                Some(copies) => {
                    copies.rows(row).iter().for_each(|&row| visitor.cell(rows.start + row as usize, col, word))
                }
            }
        })
    }

    /// Classes without bits are checked without a walk, which no bytes would bound.
    fn check_block(&self, head: &Head, block: &[u8], rows: Range<usize>) -> Result<usize, DecodeError> {
        let Some((gap, symbol)) = self.tables.only_entry() else {
            let mut stored = Count(0);
            self.visit_block(head, block, rows, &mut stored)?;
            return Ok(stored.0);
        };
        let Block { copies, entries, cursor, decoder, .. } = self.tables.open(head, block, rows.len())?;
        decoder.finish()?;
        cursor.check(entries, gap)?;
        if Some(u64::from(symbol)) == head.zero_word() {
            return Ok(0);
        }
        let Some(copies) = copies else { return Ok(entries) };
        // Entries stand at gap, 2 gap + 1, ...: so many of them are before a row of the grid.
        let before = |row: usize| entries.min(row * cursor.cols() / (gap as usize + 1));
        let of_row = |&row: &u32| before(row as usize + 1) - before(row as usize);
        Ok(copies.numbers.iter().map(of_row).sum())
    }

    fn multiply_block(
        &self,
        head: &Head,
        block: (&[u8], Range<usize>),
        wanted: Range<usize>,
        inputs: Inputs,
        out: &mut [f32],
    ) -> bool {
        self.tables.multiply(head, block, wanted, inputs, out)
    }

    fn resident_bytes(&self) -> usize {
        let Tables { gaps, symbols, live, .. } = &self.tables;
        let tables = gaps.iter().chain([symbols]).map(Table::resident_bytes).sum::<usize>();
        size_of::<Self>() + tables + live.as_ref().map_or(0, |live| size_of_val(&live[..]))
    }
}

impl Rans {
    /// As [`Codec::read_shared`], of payloads of which no row is a copy: a walk then visits the rows in order.
    ///
    /// # Errors
    /// [`DecodeError::ReservedFlags`] where rows may be copies, and those of [`Codec::read_shared`].
    pub(super) fn read_without_copies(head: &Head, input: &mut &[u8]) -> Result<Self, DecodeError> {
        match input.first() {
            Some(&flags) if flags & COPIES != 0 => Err(DecodeError::ReservedFlags { flags }),
            _ => Self::read_shared(head, input),
        }
    }
}

impl Tables {
    fn read(cols: usize, levels: usize, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let (&flags, rest) = input.split_first().ok_or(DecodeError::UnexpectedEof { needed: 1, found: 0 })?;
        *input = rest;
        let lanes = 1 << (flags & LANES);
        if lanes > MAX_LANES || flags & !(LANES | ALL_CELLS | LIVE | COPIES) != 0 {
            return Err(DecodeError::ReservedFlags { flags });
        }
        let live = if flags & LIVE == 0 { None } else { Some(grid::read_live(cols, input)?) };
        let low_bits = low_bits(levels);
        let mut bits = BitReader::new(input);
        let gaps = if flags & ALL_CELLS == 0 { Some(Model::read(gap::CLASSES, &mut bits)?) } else { None };
        let symbols = Model::read(((levels - 1) >> low_bits) + 1, &mut bits)?;
        *input = bits.into_rest()?;
        Ok(Self {
            lanes,
            gaps: gaps.as_ref().map(Table::new),
            symbols: Table::new(&symbols),
            low_bits,
            live,
            has_copies: flags & COPIES != 0,
        })
    }

    /// Columns of the grid.
    fn cols(&self, head: &Head) -> usize {
        self.live.as_ref().map_or(head.cols, Vec::len)
    }

    /// Takes what stands before the words of a block of `rows`.
    fn open<'a>(&'a self, head: &Head, mut block: &'a [u8], rows: usize) -> Result<Block<'a>, DecodeError> {
        let copies = if self.has_copies { grid::read_copies(rows, &mut block)? } else { None };
        let distinct = copies.as_ref().map_or(rows, |copies| copies.distinct);
        let cells = distinct * self.cols(head);
        let entries = if self.gaps.is_some() { take_varint(&mut block)? as usize } else { cells };
        if entries > cells {
            return Err(DecodeError::TooManyEntries { cells });
        }
        let decoder = Decoder::new(self.gaps.as_ref(), &self.symbols, self.lanes, entries, block)?;
        Ok(Block { copies, distinct, entries, cursor: Cursor::new(distinct, self.cols(head)), decoder })
    }

    /// Calls `entry(row, col, word)` for every entry, with its row and column in the grid.
    #[inline]
    fn walk(
        &self,
        head: &Head,
        mut cursor: Cursor,
        mut decoder: Decoder,
        mut entry: impl FnMut(usize, usize, u64),
    ) -> Result<(), DecodeError> {
        let check = head.word_check();
        let mut batch = Batch::new();
        let mut gaps = [0; BATCH];
        loop {
            let entries = decoder.next(&mut batch)?;
            if entries == 0 {
                return decoder.finish();
            }
            let symbols = &batch.symbols[..entries];
            if self.low_bits == 0 {
                // Every class is a symbol of the codebook.
                decoder.gaps(&batch.gaps[..entries], &mut gaps[..entries])?;
                for (&gap, &symbol) in gaps.iter().zip(symbols) {
                    let (row, col) = cursor.advance(gap)?;
                    entry(row, col, u64::from(symbol));
                }
                continue;
            }
            for (&class, &symbol) in batch.gaps.iter().zip(symbols) {
                let gap = gap::gap(class, decoder.take(gap::extra_bits(class))?);
                let word = u64::from(symbol) << self.low_bits | u64::from(decoder.take(self.low_bits)?);
                let (row, col) = cursor.advance(gap)?;
                entry(row, col, check.word(word)?);
            }
        }
    }

    /// Gap and symbol of all entries, where they take no bits.
    fn only_entry(&self) -> Option<(u32, u16)> {
        let gap = self.gaps.as_ref().map_or(Some(0), Table::only_class).filter(|&class| class < gap::FIRST_LONG)?;
        let symbol = self.symbols.only_class().filter(|_| self.low_bits == 0)?;
        Some((u32::from(gap), u16::from(symbol)))
    }
}

/// Calls `run(row, col, symbols)` for every run of cells within a row, where all cells are entries.
#[inline]
fn walk_all(cols: usize, mut decoder: Decoder, mut run: impl FnMut(usize, usize, &[u8])) -> Result<(), DecodeError> {
    let mut batch = Batch::new();
    let (mut row, mut col) = (0, 0);
    loop {
        let entries = decoder.next(&mut batch)?;
        if entries == 0 {
            return decoder.finish();
        }
        let mut symbols = &batch.symbols[..entries];
        while let Some((of_row, rest)) =
            symbols.split_at_checked(symbols.len().min(cols - col)).filter(|_| !symbols.is_empty())
        {
            run(row, col, of_row);
            col += of_row.len();
            if col == cols {
                (row, col) = (row + 1, 0);
            }
            symbols = rest;
        }
    }
}

/// Bits of a symbol of a codebook of `levels` values that its class does not hold.
fn low_bits(levels: usize) -> u32 {
    levels.next_power_of_two().ilog2().saturating_sub(8)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{raw_3x3, shared_3x3};
    use super::super::{CodecId, EncodeError, encode};

    #[test]
    fn a_state_holds_gaps_and_symbols_in_turns() {
        let payload = encode(&shared_3x3(), CodecId::Rans, 3).unwrap();
        // Gaps 1, 4, 1: precision 1 (0001), d = 0 (00), and bit lengths 0 (1), 1 (001), 0 (01), 0 (1), 1 (001).
        // Symbols 0, 2, 2: precision 1 (0001), d = 0 (00), and bit lengths 1 (001), 0 (01), 1 (001).
        // Every class is the lowest bit of the state, the first entry's first: 0 0, 1 1, 0 1 above 2^16.
        let state = 1 << 22 | 0b10_11_00;
        let models = [0b0001_0010, 0b0101_1001, 0b0001_0000, 0b1010_0100];
        assert_eq!(payload, [&[0][..], &models, &[3], &u32::to_le_bytes(state)].concat());
    }

    #[test]
    fn raw_values_are_refused() {
        let error = EncodeError::NeedsCodebook { codec: CodecId::Rans };
        assert_eq!(encode(&raw_3x3(), CodecId::Rans, 3), Err(error));
    }
}
