//! Compressed sparse column: for each column the rows and the words of the cells that are not zero.
//!
//! # Format
//! Shared part: empty. `h` = rows of the block, `w` = index width of `h`.
//!
//! | block section | length | width |
//! |---|---|---|
//! | counts: stored cells of each column | cols | `w` |
//! | rows: of the stored cells, counted from the block's first row, column by column, rising strictly within a column | nnz = sum of the counts | `w` |
//! | words: in the same order | nnz | word width |
//!
//! A count is at most `h`, a row below it. Where there is no zero word every cell is stored.
