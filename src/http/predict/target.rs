//! Which model and version is asked, and what it takes and gives.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::http::{Error, Name};
use crate::model::Port;
use crate::storage::{ModelRecord, ServedVersion};

/// A model, and a version of it where the path names one.
#[derive(Debug, Deserialize)]
pub struct Target {
    pub name: Name,
    /// `None`: the default one.
    pub version: Option<i64>,
}

/// The path of a model, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes parameters")]
pub struct ModelPath {
    /// The model's name.
    name: Name,
}

/// The path of a version, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code, reason = "it only describes parameters")]
pub struct VersionPath {
    /// The model's name.
    name: Name,
    /// The version, a decimal number.
    version: i64,
}

impl Target {
    /// The model, and the number of the version: the one that was named, or the model's default.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find(&self, app: &App) -> Result<(ModelRecord, i64), Error> {
        let model = app.storage.store.model(self.name.as_str()).await?;
        let Some(number) = self.version else {
            let default = model.default_version;
            return Ok((model, default));
        };
        app.storage.store.version(&model, number).await?;
        Ok((model, number))
    }

    /// As [`Target::find`], for a prediction: others may have changed the model within the last second.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn served(&self, app: &App) -> Result<ServedVersion, Error> {
        Ok(app.storage.store.served(self.name.as_str(), self.version).await?)
    }
}

/// A model and the numbers of its versions, ascending.
///
/// # Errors
/// [`Error::Store`].
pub async fn with_versions(app: &App, name: &Name) -> Result<(ModelRecord, Vec<i64>), Error> {
    let model = app.storage.store.model(name.as_str()).await?;
    let versions = app.storage.store.versions(&model.id, -1, i64::MAX).await?;
    Ok((model, versions.iter().map(|version| version.number).collect()))
}

/// The extents of an input or output; -1: any.
pub fn extents(port: &Port) -> Vec<i64> {
    port.dims.iter().map(|dim| dim.and_then(|extent| i64::try_from(extent).ok()).unwrap_or(-1)).collect()
}

/// Refuses a model that predictions cannot run, and says why.
///
/// # Errors
/// [`Error::NotPredictable`].
pub fn require_predictable(model: &ModelRecord) -> Result<(), Error> {
    match fault_of(model) {
        None => Ok(()),
        Some(reason) => Err(Error::NotPredictable { model: model.name.clone(), reason }),
    }
}

/// Why predictions cannot run `model`; `None` when they can.
pub fn fault_of(model: &ModelRecord) -> Option<String> {
    if model.is_predictable() {
        None
    } else if model.unsupported_operators.is_empty() {
        Some("it holds weights only, no graph".to_owned())
    } else {
        Some(format!("predictions do not support {}", model.unsupported_operators.join(", ")))
    }
}
