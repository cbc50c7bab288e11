//! `/v2`: the Open Inference Protocol, version 2, with tensors in JSON or binary.
//!
//! Source: <https://github.com/kserve/open-inference-protocol>, `inference_rest.md`; the extensions are Triton's. Facts of the field: the client
//! `tritonclient` sends no `Content-Type`, takes every status but 200 for a failure, and reads the member `error` of it.

mod answer;
mod binary;
mod catalogue;
mod config;
mod infer;
mod metadata;
mod prediction;
mod repository;
mod statistics;
mod tensor;

use utoipa_axum::router::OpenApiRouter;

use super::Api;
use super::predict::{ModelPath, Target, VersionPath, extents, require_predictable, with_versions};

pub use binary::BinaryError;
pub use prediction::read_inputs;
pub use tensor::TensorError;

pub fn router() -> OpenApiRouter<Api> {
    metadata::router()
        .merge(infer::router())
        .merge(config::router())
        .merge(statistics::router())
        .merge(repository::router())
}
