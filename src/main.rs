//! The `weightpress` command.

fn main() {}
