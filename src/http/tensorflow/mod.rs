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

use axum::http::{Method, Uri};
use utoipa_axum::router::OpenApiRouter;

use super::predict::Target;
use super::{Api, Error, verb};

pub fn router() -> OpenApiRouter<Api> {
    infer::router().merge(status::router()).merge(metadata::router())
}

/// The one signature of a model.
const SIGNATURE: &str = "serving_default";

/// What is asked for by the parameters of a path that end in `verb`.
///
/// # Errors
/// Those of [`verb::noun`]; [`Error::Name`]; [`Error::InvalidParameter`] for a version that is no number.
fn target(path: &Parameters, verb: Option<&str>, head: (&Method, &Uri)) -> Result<Target, Error> {
    let last = path.version.as_ref().unwrap_or(&path.name);
    let noun = verb::noun(last, verb, head)?;
    let Some(version) = &path.version else { return Ok(Target { name: noun.parse()?, version: None }) };
    let number = noun.parse().map_err(|_| Error::InvalidParameter(format!("the version `{version}` is no number")))?;
    Ok(Target { name: path.name.parse()?, version: Some(number) })
}

/// The parameters of a path; the last may have a verb behind it.
#[derive(Debug, serde::Deserialize)]
struct Parameters {
    name: String,
    version: Option<String>,
}
