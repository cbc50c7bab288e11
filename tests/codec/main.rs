//! Every codec, from the outside: no database, no service.
//!
//! Each file asks one question of all codecs in `CodecId::ALL`, so a new codec is tested by being listed there (and by
//! its golden file).

mod allocation;
mod corruption;
mod edge_shapes;
mod golden;
mod layer;
mod matrices;
mod pitfalls;
mod product;
mod real_layers;
mod round_trip;
