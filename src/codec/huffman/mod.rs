//! Canonical Huffman codes of at most 32 bits, and their dictionary on the wire: the code lengths alone.
//!
//! # Format
//! **Code.** Symbols that have a code word are ordered by (length, symbol). The first code word is all zeros; each next
//! one is the one before plus 1, shifted left by the growth in length. A code is complete: the sum of 2^-length is 1.
//! A single symbol has a code word of no bits.
//!
//! **Dictionary** of an alphabet of `k` symbols:
//!
//! 1. `used`: varint, the number of symbols that have a code word, at most `k`.
//! 2. A bit string, most significant bit first, zero bits up to a whole byte at its end (no bytes when neither part
//!    is present):
//!    - if 0 < used < k: `g`, 4 bits; then for each used symbol in rising order `Rice(g)` of the number of unused symbols
//!      between it and the used symbol before it (or the start of the alphabet);
//!    - if used >= 2: `d`, 2 bits; the first used symbol's length minus 1, 5 bits; then for every other used symbol in
//!      rising order `Rice(d)` of its length minus the length before, zigzag (0, -1, 1, -2, 2, ... are 0, 1, 2, 3, 4, ...).
//!
//! `Rice(p)` of `v`: `v >> p` zero bits, a one bit, then the low `p` bits of `v`. Encoders choose the smallest `g` and
//! `d` that make the string shortest.
