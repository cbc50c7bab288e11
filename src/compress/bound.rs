//! The most bytes that a layer can take, from its shape and settings alone: what a dry run promises.
//!
//! A codec's size is bounded section by section, as its format lays them out, for the most values and the fewest zeros
//! that the settings allow. No code is longer in total than one of `ceil(log2 k)` bits for each of `k` symbols, which the
//! Huffman codes here may always choose.

use super::layer::{RARELY_REPEATED, Task};
use super::{CodebookScope, CodecChoice};
use crate::codec::{self, CodecId};
use crate::prune::{Prune, Scope};
use crate::tensor::MAX_LEVELS;

/// Most bytes of a record beside name, codebook and payload (kind, layout, codec, rows of a block, length or number of
/// the codebook, checksum), and of a varint for each dimension.
const RECORD_BYTES: usize = 48;
const VARINT_BYTES: usize = 10;

/// Most bytes that a block adds: its length in the table, and a partly filled last byte.
const BLOCK_BYTES: usize = 6;

/// Most bytes that a chunk of binned numbers adds, and that come before them.
const CHUNK_BYTES: usize = 192;
const BINNED_BYTES: usize = 2;

/// Most bits of a dictionary for each symbol (a step between two lengths takes at most 11), and bytes of its start.
const DICTIONARY_BITS: usize = 12;
const DICTIONARY_BYTES: usize = 8;

/// Most bytes that states, the number of entries and rounded words add to a block of rANS; and of its two models.
const RANS_BLOCK_BYTES: usize = 4 * 32 + 12;
const RANS_MODEL_BYTES: usize = 2 * 256 * 3;

/// A rANS model whose frequencies are rounded loses less than this part of a bit on a symbol: one in `RANS_LOSS`.
const RANS_LOSS: usize = 4;

/// The most bytes of the record of `task`'s layer. `levels` are the non-zero values that its method may leave; without a
/// method every value is kept.
pub(super) fn record_bytes(task: &Task, levels: Option<usize>) -> u64 {
    let weight = task.weight;
    let header = RECORD_BYTES + weight.name.len() + VARINT_BYTES * weight.dims.len();
    let cells = Cells::of(task);
    let codec = task.settings.encode.codec;
    let body = match levels {
        Some(levels) => {
            let is_unified = task.settings.quantize.is_some_and(|q| q.codebook == CodebookScope::Unified);
            // A codebook of its own has no more values than the layer has weights, and zero.
            let values = 1 + if is_unified { levels } else { levels.min(cells.count) };
            let shared = cells.shared(codec, values.min(MAX_LEVELS));
            if is_unified || codec != CodecChoice::Auto { shared } else { shared.min(cells.auto(values)) }
        }
        None if codec == CodecChoice::Auto => cells.auto(MAX_LEVELS),
        None => cells.shared(codec, cells.count.min(MAX_LEVELS)).max(cells.raw(codec)),
    };
    (header + body) as u64
}

/// What decides how many bytes the cells of a layer take.
struct Cells {
    count: usize,
    rows: usize,
    cols: usize,
    /// Cells that may be other than zero.
    stored: usize,
    /// At most: of a sparse matrix there are fewer, of more rows.
    blocks: usize,
    value_bytes: usize,
}

impl Cells {
    fn of(task: &Task) -> Self {
        let weight = task.weight;
        let (rows, cols) = weight.layout.shape(&weight.dims).expect("a model's layouts fit its tensors");
        let count = rows * cols;
        let rows_per_block = codec::rows_per_block(rows, cols);
        let zeros = task.settings.prune.map_or(0, |prune| zeros_at_least(prune, count));
        let (stored, blocks) = (count - zeros, rows.div_ceil(rows_per_block));
        Self { count, rows, cols, stored, blocks, value_bytes: weight.dtype.size_bytes() }
    }

    /// With a codebook of at most `values`, and the smallest codec that may be chosen.
    fn shared(&self, codec: CodecChoice, values: usize) -> usize {
        let payload = match codec {
            CodecChoice::Only(codec) => self.payload(codec, values),
            CodecChoice::Auto => CodecId::ALL.iter().map(|&codec| self.payload(codec, values)).min().unwrap_or(0),
        };
        values * self.value_bytes + payload
    }

    /// With at most `values`, when everything is open: each in full if they repeat rarely, else a codebook.
    fn auto(&self, values: usize) -> usize {
        let repeated = values.min(self.count / RARELY_REPEATED).max(1);
        self.shared(CodecChoice::Auto, repeated).max(self.raw(CodecChoice::Auto))
    }

    /// Every value in full: by the codec asked for if it takes raw values, else by the smallest.
    fn raw(&self, codec: CodecChoice) -> usize {
        match codec {
            CodecChoice::Only(codec @ (CodecId::Csr | CodecId::Csc | CodecId::Pco)) => {
                self.plain(codec, self.value_bytes)
            }
            _ => self.plain(CodecId::Dense, self.value_bytes),
        }
    }

    /// The payload of a matrix with a codebook of `values`.
    fn payload(&self, codec: CodecId, values: usize) -> usize {
        let symbol_bytes = if values <= 256 { 1 } else { 2 };
        let code_bits = values.next_power_of_two().ilog2() as usize;
        let frame = BLOCK_BYTES * self.blocks;
        let dictionary = DICTIONARY_BYTES + (DICTIONARY_BITS * values).div_ceil(8);
        let width = index_width(self.cols);
        match codec {
            CodecId::Dense | CodecId::Csr | CodecId::Csc => self.plain(codec, symbol_bytes),
            // It takes no symbols: the values are written in full.
            CodecId::Pco => self.plain(codec, self.value_bytes),
            CodecId::IndexMap => frame + (self.count * code_bits).div_ceil(8),
            CodecId::Ham => frame + dictionary + (self.count * code_bits).div_ceil(8),
            CodecId::Sham => {
                frame + dictionary + width * (self.rows + self.stored) + (self.stored * code_bits).div_ceil(8)
            }
            CodecId::Cser => {
                let groups = self.stored.min(self.rows * values);
                frame + width * (self.rows + self.stored) + groups * (symbol_bytes + width)
            }
            // No block is larger than its index map, but for its head; and it has a byte for 2^11 cells.
            CodecId::Mix => VARINT_BYTES + 2 * frame + (self.count * code_bits.max(1)).div_ceil(8),
            CodecId::Rans => frame + self.rans(code_bits),
            // The changes have a word more than the codebook has values; a parent takes a code word and a place in a dictionary.
            CodecId::Delta => {
                let parents = self.rows * (DICTIONARY_BITS + (self.rows + 1).next_power_of_two().ilog2() as usize);
                let parents = self.blocks * (VARINT_BYTES + 2) + parents.div_ceil(8);
                frame + parents + self.rans((values + 1).next_power_of_two().ilog2() as usize)
            }
        }
    }

    /// By rANS, which may always code all cells with a model that is off by little; codes of `code_bits` would do.
    fn rans(&self, code_bits: usize) -> usize {
        let cells = (self.count * (RANS_LOSS * code_bits + 1)).div_ceil(8 * RANS_LOSS);
        RANS_BLOCK_BYTES * self.blocks + RANS_MODEL_BYTES + cells
    }

    /// The payload of a codec that writes words of `word_bytes` as they are.
    fn plain(&self, codec: CodecId, word_bytes: usize) -> usize {
        let sparse =
            |lines: usize, extent: usize| index_width(extent) * (lines + self.stored) + word_bytes * self.stored;
        let blocks = match codec {
            CodecId::Csr => sparse(self.rows, self.cols),
            CodecId::Csc => sparse(self.blocks * self.cols, self.rows),
            CodecId::Pco => {
                let chunks = self.blocks + self.count / codec::CHUNK_NUMBERS;
                self.count * word_bytes + CHUNK_BYTES * chunks + BINNED_BYTES
            }
            _ => self.count * word_bytes,
        };
        BLOCK_BYTES * self.blocks + blocks
    }
}

/// Weights of a layer that are sure to be removed. How a global threshold falls on one layer only the weights tell.
fn zeros_at_least(prune: Prune, count: usize) -> usize {
    if prune.pattern.is_some() {
        return 0;
    }
    match prune.scope {
        Scope::Tensor => (prune.sparsity.get() * count.saturating_sub(1) as f64) as usize,
        Scope::Row | Scope::Global => 0,
    }
}

/// Bytes of an index below, or a count of at most, `n`.
fn index_width(n: usize) -> usize {
    match n {
        0..0x100 => 1,
        0x100..0x1_0000 => 2,
        _ => 4,
    }
}
