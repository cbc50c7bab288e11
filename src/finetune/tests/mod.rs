//! Tests of fine-tuning as a whole.
