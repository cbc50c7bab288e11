//! Datasets, their mapping onto a graph's inputs, and the metrics of an evaluation.
