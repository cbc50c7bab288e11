//! HAM, the Huffman address map: one Huffman code over all symbols, zero included.
//!
//! # Format
//! Shared part: the dictionary ([`super::huffman`]) over all `k` symbols of the codebook. Block: the code words of its
//! cells, row-major, most significant bit first, then zero bits up to a whole byte. Where only one symbol occurs its
//! code word has no bits and a block is empty.
//!
//! # Source
//! Marinò, Ghidoli, Frasca, Malchiodi, "Compression strategies and space-conscious representations for deep neural
//! networks", arXiv:2007.07967, section III (their column is our row).
