//! Compressed sparse row: for each row the columns and the words of the cells that are not zero.
//!
//! # Format
//! Shared part: empty. `w = index width of cols`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | counts: stored cells of each row | rows of the block | `w` |
//! | columns: of the stored cells, row by row, rising strictly within a row | nnz = sum of the counts | `w` |
//! | words: in the same order | nnz | word width |
//!
//! A count is at most cols, a column below it. Where there is no zero word every cell is stored.
