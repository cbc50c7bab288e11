//! Datasets, their mapping onto a graph's inputs, and the metrics of an evaluation.

// NOTE from the lead to the model engineer: evaluate/metrics.rs is written (accumulators + tests): keep it, build dataset, mapping and evaluate() around it. Delete this note.
// evaluation must also serve `predict --input`: a reader of named arrays that need not have equal lengths (Dataset::open + read_all(name) -> infer::Array, equal-length check only in evaluation).
