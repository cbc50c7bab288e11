//! `/v2`: the Open Inference Protocol, version 2, with tensors in JSON or binary.
//!
//! Source: <https://github.com/kserve/open-inference-protocol>, `inference_rest.md`; the extensions are Triton's. Facts of the field: the client
//! `tritonclient` sends no `Content-Type`, takes every status but 200 for a failure, and reads the member `error` of it.

mod answer;
mod binary;
mod catalogue;
mod config;
mod data;
mod envelope;
mod infer;
mod measure;
mod metadata;
mod prediction;
mod repository;
mod statistics;
mod tensor;

use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::model::Port;
use crate::storage::{ModelRecord, ServedVersion};

use super::{Api, Error, Name};

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

/// A model, and a version of it where the path names one.
#[derive(Debug, Deserialize)]
struct Target {
    name: Name,
    version: Option<i64>,
}

/// The path of a model, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes parameters")]
struct ModelPath {
    /// The model's name.
    name: String,
}

/// The path of a version, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes parameters")]
struct VersionPath {
    /// The model's name.
    name: String,
    /// The version, a decimal number.
    version: i64,
}

impl Target {
    /// The model, and the number of the version: the one that was named, or the model's default.
    async fn find(&self, app: &App) -> Result<(ModelRecord, i64), Error> {
        let model = app.storage.store.model(self.name.as_str()).await?;
        let Some(number) = self.version else {
            let default = model.default_version;
            return Ok((model, default));
        };
        app.storage.store.version(&model, number).await?;
        Ok((model, number))
    }

    /// As [`Target::find`], for a prediction: others may have changed the model within the last second.
    async fn served(&self, app: &App) -> Result<ServedVersion, Error> {
        Ok(app.storage.store.served(self.name.as_str(), self.version).await?)
    }
}

/// A model and the numbers of its versions, ascending.
async fn with_versions(app: &App, name: &Name) -> Result<(ModelRecord, Vec<i64>), Error> {
    let model = app.storage.store.model(name.as_str()).await?;
    let versions = app.storage.store.versions(&model.id, -1, i64::MAX).await?;
    Ok((model, versions.iter().map(|version| version.number).collect()))
}

/// The extents of an input or output; -1: any.
fn extents(port: &Port) -> Vec<i64> {
    port.dims.iter().map(|dim| dim.and_then(|extent| i64::try_from(extent).ok()).unwrap_or(-1)).collect()
}

/// Refuses a model that predictions cannot run, and says why.
fn require_predictable(model: &ModelRecord) -> Result<(), Error> {
    match catalogue::fault_of(model) {
        None => Ok(()),
        Some(reason) => Err(Error::NotPredictable { model: model.name.clone(), reason }),
    }
}
