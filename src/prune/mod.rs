//! Pruning: which weights become zero. A file per criterion.
