//! Packed matrices: exact, and their products against a dense product in f64.

#[path = "../codec/layer.rs"]
#[allow(dead_code, reason = "shared with the tests of codecs, which use all of it")]
mod layer;
#[path = "../codec/matrices.rs"]
#[allow(dead_code, reason = "shared with the tests of codecs, which use all of it")]
mod matrices;
mod product;
