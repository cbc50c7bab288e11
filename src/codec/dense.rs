//! Dense: every word in full, the representation that the others are measured against.
//!
//! # Format
//! Shared part: empty.
//!
//! | block section | length | width |
//! |---|---|---|
//! | words, row-major | rows of the block x cols | word width |
