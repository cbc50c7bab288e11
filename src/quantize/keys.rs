//! f32 values as integers of the same order.
