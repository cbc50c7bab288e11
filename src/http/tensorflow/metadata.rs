//! What a model takes and gives, as a signature.

use std::collections::BTreeMap;

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::predict::{ModelPath, Target, VersionPath, extents};
use crate::http::problem::Failures;
use crate::http::{Api, Error, extract};
use crate::model::Port;
use crate::storage::ModelRecord;

use super::SIGNATURE;

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(model_signature)).routes(routes!(version_signature))
}

/// A model and its signature.
#[derive(Debug, Serialize, ToSchema)]
struct SignatureAnswer {
    model_spec: ModelSpec,
    metadata: SignatureMetadata,
}

/// Which version it is.
#[derive(Debug, Serialize, ToSchema)]
struct ModelSpec {
    name: String,
    /// Empty.
    signature_name: &'static str,
    /// A decimal number.
    version: String,
}

/// The metadata that there is.
#[derive(Debug, Serialize, ToSchema)]
struct SignatureMetadata {
    signature_def: SignatureMap,
}

/// Signatures by their names: `serving_default`.
#[derive(Debug, Serialize, ToSchema)]
struct SignatureMap {
    signature_def: BTreeMap<&'static str, Signature>,
}

/// Inputs and outputs by their names.
#[derive(Debug, Serialize, ToSchema)]
struct Signature {
    inputs: BTreeMap<String, TensorInfo>,
    outputs: BTreeMap<String, TensorInfo>,
    method_name: &'static str,
}

/// An input or an output.
#[derive(Debug, Serialize, ToSchema)]
struct TensorInfo {
    #[schema(example = "DT_FLOAT")]
    dtype: &'static str,
    tensor_shape: TensorShape,
    name: String,
}

/// Extents, outermost first.
#[derive(Debug, Serialize, ToSchema)]
struct TensorShape {
    dim: Vec<TensorDim>,
    unknown_rank: bool,
}

/// An extent.
#[derive(Debug, Serialize, ToSchema)]
struct TensorDim {
    /// A decimal number; -1: any.
    #[schema(example = "-1")]
    size: String,
    /// Empty.
    name: &'static str,
}

impl From<&Port> for TensorInfo {
    fn from(port: &Port) -> Self {
        let dim = extents(port).iter().map(|extent| TensorDim { size: extent.to_string(), name: "" }).collect();
        let tensor_shape = TensorShape { dim, unknown_rank: false };
        Self { dtype: dtype(&port.datatype), tensor_shape, name: port.name.clone() }
    }
}

/// TensorFlow's name of a datatype.
fn dtype(datatype: &str) -> &'static str {
    match datatype {
        "BOOL" => "DT_BOOL",
        "UINT8" => "DT_UINT8",
        "UINT16" => "DT_UINT16",
        "UINT32" => "DT_UINT32",
        "UINT64" => "DT_UINT64",
        "INT8" => "DT_INT8",
        "INT16" => "DT_INT16",
        "INT32" => "DT_INT32",
        "INT64" => "DT_INT64",
        "FP16" => "DT_HALF",
        "BF16" => "DT_BFLOAT16",
        "FP32" => "DT_FLOAT",
        "FP64" => "DT_DOUBLE",
        "BYTES" => "DT_STRING",
        _ => "DT_INVALID",
    }
}

impl SignatureAnswer {
    fn new(model: ModelRecord, version: i64) -> Self {
        let by_name = |ports: &[Port]| ports.iter().map(|port| (port.name.clone(), port.into())).collect();
        let signature = Signature {
            inputs: by_name(&model.inputs),
            outputs: by_name(&model.outputs),
            method_name: "tensorflow/serving/predict",
        };
        let signature_def = SignatureMap { signature_def: BTreeMap::from([(SIGNATURE, signature)]) };
        let model_spec = ModelSpec { name: model.name, signature_name: "", version: version.to_string() };
        Self { model_spec, metadata: SignatureMetadata { signature_def } }
    }
}

/// The signature of a model's default version.
#[utoipa::path(
    get,
    path = "/v1/models/{name}/metadata",
    tag = "tensorflow",
    security(("key" = ["predict"])),
    params(ModelPath),
    responses((status = OK, description = "The signature", body = SignatureAnswer), Failures)
)]
async fn model_signature(
    app: App,
    extract::Path(target): extract::Path<Target>,
) -> Result<Json<SignatureAnswer>, Error> {
    signature(&app, &target).await
}

/// The signature of a version.
#[utoipa::path(
    get,
    path = "/v1/models/{name}/versions/{version}/metadata",
    tag = "tensorflow",
    security(("key" = ["predict"])),
    params(VersionPath),
    responses((status = OK, description = "The signature", body = SignatureAnswer), Failures)
)]
async fn version_signature(
    app: App,
    extract::Path(target): extract::Path<Target>,
) -> Result<Json<SignatureAnswer>, Error> {
    signature(&app, &target).await
}

async fn signature(app: &App, target: &Target) -> Result<Json<SignatureAnswer>, Error> {
    let (model, version) = target.find(app).await?;
    Ok(Json(SignatureAnswer::new(model, version)))
}
