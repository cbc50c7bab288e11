//! sHAM, the sparse Huffman address map: raw positions of the cells that are not zero, and their symbols in a Huffman
//! code without zero.
//!
//! # Format
//! Shared part: the dictionary ([`super::huffman`]) over the symbols of the codebook but zero, in order; over all of them
//! where the codebook has no zero. `w = index width of cols`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | counts: stored cells of each row | rows of the block | `w` |
//! | columns: of the stored cells, row by row, rising strictly within a row | nnz = sum of the counts | `w` |
//! | code words: in the same order, most significant bit first, then zero bits up to a whole byte | nnz | |
//!
//! # Source
//! Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
//! networks", arXiv:2007.07967, section III (their column is our row).
