//! `/v1`: the REST API of TensorFlow Serving, for clients that speak it.
//!
//! Predictions in rows and in columns, the state of versions, and metadata. The default version answers where none is named.
//! Texts, `{"b64": ...}` among them, are refused: no model reads them that predicts here. What differs: JSON has no NaN, so
//! an output that is none is `null`.
//!
//! Source: <https://github.com/tensorflow/serving>, `tensorflow_serving/g3doc/api_rest.md`; KServe's first protocol is the
//! same but for the member `ready` of a model's state: <https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol>.

mod infer;
mod metadata;
mod status;

use utoipa_axum::router::OpenApiRouter;

use super::predict::Target;
use super::verb::noun;
use super::{Api, Error};

pub fn router() -> OpenApiRouter<Api> {
    infer::router().merge(status::router()).merge(metadata::router())
}

/// The one signature of a model.
const SIGNATURE: &str = "serving_default";

/// The parameters of a path; the last may have a verb behind it.
#[derive(Debug, serde::Deserialize)]
struct Parameters {
    name: String,
    version: Option<String>,
}

impl Parameters {
    /// What is asked.
    ///
    /// # Errors
    /// [`Error::Name`]; [`Error::InvalidParameter`] for a version that is no number.
    fn target(&self) -> Result<Target, Error> {
        let Some(version) = &self.version else { return Ok(Target { name: noun(&self.name).parse()?, version: None }) };
        let not_a_number = |_| Error::InvalidParameter(format!("the version `{}` is no number", noun(version)));
        let number = noun(version).parse().map_err(not_a_number)?;
        Ok(Target { name: self.name.parse()?, version: Some(number) })
    }
}
