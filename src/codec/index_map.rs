//! Index map: the symbol of every cell in `ceil(log2 k)` bits, `k` the size of the codebook.
//!
//! # Format
//! Shared part: empty. Block: the symbols of its cells, row-major, `ceil(log2 k)` bits each, most significant bit
//! first, then zero bits up to a whole byte. With `k = 1` a block is empty.
