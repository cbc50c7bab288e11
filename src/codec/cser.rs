//! CSER, compressed shared elements row: each row lists the symbols that occur in it but zero, and the columns of each.
//!
//! The paper leaves out the most frequent value; here that is zero, or nothing where the codebook has no zero.
//!
//! # Format
//! Shared part: empty. `w = index width of cols`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | groups: distinct stored symbols of each row | rows of the block | `w` |
//! | symbols: of the groups, row by row, rising strictly within a row | G = sum of the groups | word width |
//! | counts: cells of each group, at least 1 | G | `w` |
//! | columns: group by group, rising strictly within a group; no column twice in a row | nnz = sum of the counts | `w` |
//!
//! # Source
//! Wiedemann, Müller, Samek, "Compact and computationally efficient representation of deep neural networks",
//! arXiv:1805.10692, section III.
