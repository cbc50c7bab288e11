//! Predictions in rows and in columns.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::limits::Limits;
use crate::http::predict::{
    Answer, Arrays, AsNested, Asked, CodingHeaders, Columns, InRows, InputValues, ModelPath, OutputValues, Prediction,
    Rows, Together, VersionPath, predict, read_json,
};
use crate::http::problem::Failures;
use crate::http::verb::routed;
use crate::http::{Api, Error, extract};

use super::{Parameters, SIGNATURE};

pub fn router() -> OpenApiRouter<Api> {
    routed(routes!(predict_default)).merge(routed(routes!(predict_version)))
}

/// A prediction to make.
#[derive(Deserialize)]
struct Body {
    signature_name: Option<String>,
    instances: Option<Rows>,
    inputs: Option<Columns>,
}

/// A prediction to make. Inputs have the shapes that they are nested in, and the datatypes of the model; their names may be left
/// out where there is only one.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(example = json!({"instances": [[1.0, 2.0], [3.0, 4.0]]}))]
#[allow(dead_code, reason = "it only describes requests")]
enum PredictRequest {
    /// In rows.
    Rows {
        signature_name: Option<Signature>,
        /// Each a sample: the value of the input, or an object with the values of all.
        #[schema(min_items = 1)]
        instances: Vec<InputValues>,
    },
    /// In columns.
    Columns {
        signature_name: Option<Signature>,
        /// The input with all of its samples, or an object with all inputs.
        inputs: InputValues,
    },
}

/// The one signature, which is meant without a name too.
#[derive(ToSchema)]
#[schema(as = SignatureName)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "it only describes requests")]
enum Signature {
    ServingDefault,
    #[serde(rename = "")]
    Unnamed,
}

/// What was predicted, written as it was asked for.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only describes answers")]
struct PredictResponse {
    /// In rows: the output, or an object with all outputs, of each sample.
    predictions: Option<Vec<OutputValues>>,
    /// In columns: the output, or an object with all outputs.
    outputs: Option<OutputValues>,
}

/// How a prediction was asked for, and is answered.
#[derive(Debug, Clone, Copy)]
enum Form {
    Rows,
    Columns,
}

impl Prediction for Form {
    const PROTOCOL: &'static str = "tensorflow";

    type Head = ();

    fn head(_: &HeaderMap) -> Result<(), Error> {
        Ok(())
    }

    /// # Errors
    /// [`Error::InvalidJson`], [`Error::InvalidParameter`] for another signature, and those of the inputs.
    fn read((): (), body: &[u8], asked: Asked) -> Result<(Self, Arrays), Error> {
        let request: Body = read_json(body)?;
        if let Some(given) = request.signature_name.filter(|name| !matches!(name.as_str(), "" | SIGNATURE)) {
            return Err(Error::InvalidParameter(format!("there is no signature `{given}`, only `{SIGNATURE}`")));
        }
        let (form, tensors) = match (request.instances, request.inputs) {
            (Some(Rows(tensors)), None) => (Self::Rows, tensors),
            (None, Some(Columns(tensors))) => (Self::Columns, tensors),
            (None, None) => return Err(Error::InvalidJson("one of `instances` and `inputs` is missing".to_owned())),
            (Some(_), Some(_)) => {
                return Err(Error::InvalidJson("only one of `instances` and `inputs` may be given".to_owned()));
            }
        };
        Ok((form, tensors.into_arrays(asked.loaded.predictor.inputs())?))
    }

    fn write(self, outputs: Arrays) -> Result<Answer, Error> {
        match self {
            Self::Rows => {
                let named = InRows::of(&outputs)?;
                Answer::json(&RowAnswer { predictions: Brief { outputs: &outputs, named } }, 0)
            }
            Self::Columns => {
                let named = Together(&outputs);
                Answer::json(&ColumnAnswer { outputs: Brief { outputs: &outputs, named } }, 0)
            }
        }
    }
}

#[derive(Serialize)]
struct RowAnswer<'a> {
    predictions: Brief<'a, InRows<'a>>,
}

#[derive(Serialize)]
struct ColumnAnswer<'a> {
    outputs: Brief<'a, Together<'a>>,
}

/// Outputs without a name where there is only one; several are written as `named`.
struct Brief<'a, T> {
    outputs: &'a Arrays,
    named: T,
}

impl<T: Serialize> Serialize for Brief<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.outputs[..] {
            [(_, array)] => AsNested::all(array).serialize(serializer),
            _ => self.named.serialize(serializer),
        }
    }
}

/// Predicts with a model's default version.
#[utoipa::path(
    post,
    path = "/v1/models/{name}:predict",
    tag = "tensorflow",
    security(("key" = ["predict"])),
    params(ModelPath, CodingHeaders),
    request_body = PredictRequest,
    responses((status = OK, description = "The outputs", body = PredictResponse), Failures)
)]
async fn predict_default(
    app: App,
    State(limits): State<Limits>,
    extract::Path(path): extract::Path<Parameters>,
    request: Request,
) -> Result<Answer, Error> {
    answer(&app, &limits, &path, request).await
}

/// Predicts with a version of a model; version 0 is the upload itself.
#[utoipa::path(
    post,
    path = "/v1/models/{name}/versions/{version}:predict",
    tag = "tensorflow",
    security(("key" = ["predict"])),
    params(VersionPath, CodingHeaders),
    request_body = PredictRequest,
    responses((status = OK, description = "The outputs", body = PredictResponse), Failures)
)]
async fn predict_version(
    app: App,
    State(limits): State<Limits>,
    extract::Path(path): extract::Path<Parameters>,
    request: Request,
) -> Result<Answer, Error> {
    answer(&app, &limits, &path, request).await
}

async fn answer(app: &App, limits: &Limits, path: &Parameters, request: Request) -> Result<Answer, Error> {
    predict::<Form>(app, limits, &path.target()?, request).await
}
