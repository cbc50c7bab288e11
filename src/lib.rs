//! Weightpress makes trained neural networks small and keeps them usable.
//!
//! The crate has two halves. The **core** is pure and synchronous: bytes and readers in, bytes out. The **service**
//! (feature `service`, on by default) wraps it in an HTTP API, a job queue and a command line.
//!
//! Dependencies point one way:
//!
//! ```text
//! tensor <- { model <- units, prune, quantize, kernel <- codec <- packed } <- artifact <- infer <- compress <- search <- jobs <- http
//! ```
//!
//! `prune`, `quantize` and `codec` do not know each other, and nothing in the core names the service:
//! `cargo check --lib --no-default-features` proves it. ARCHITECTURE.md is the map.

mod algebra;
pub mod artifact;
pub mod benchmark;
pub mod calibrate;
pub mod codec;
pub mod compress;
pub mod evaluate;
pub mod infer;
mod kernel;
pub mod model;
pub mod packed;
pub mod progress;
pub mod prune;
pub mod quantize;
pub mod search;
pub mod tensor;
pub mod units;

#[cfg(feature = "finetune")]
pub mod finetune;

#[cfg(feature = "service")]
pub mod access;
#[cfg(feature = "service")]
pub mod app;
#[cfg(feature = "service")]
pub mod cli;
#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
pub mod jobs;
#[cfg(feature = "service")]
pub mod storage;
#[cfg(feature = "service")]
pub mod telemetry;
#[cfg(feature = "service")]
pub mod trace;
#[cfg(feature = "service")]
pub mod webhooks;
