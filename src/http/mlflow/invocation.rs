//! Predictions from data frames and from tensors.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::Error;
use crate::http::predict::{
    Answer, Arrays, Asked, Columns, InRows, InputValue, InputValues, OutputValues, Prediction, Rows, Together,
    read_json,
};

use super::frame::{Frame, Records, Split};

/// Samples to predict for.
#[derive(Deserialize)]
struct Body {
    dataframe_split: Option<Split>,
    dataframe_records: Option<Records>,
    instances: Option<Rows>,
    inputs: Option<Columns>,
}

/// Samples to predict for, in one of four forms. Other members, `params` among them, are without effect.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(example = json!({"dataframe_split": {"columns": ["width", "height"], "data": [[1.0, 2.0], [3.0, 4.0]]}}))]
#[allow(dead_code, reason = "it only describes requests")]
pub enum InvocationRequest {
    /// A data frame.
    Split { dataframe_split: SplitFrame },
    /// A data frame, as an object for each row.
    Records {
        #[schema(min_items = 1)]
        dataframe_records: Vec<BTreeMap<String, InputValue>>,
    },
    /// Tensors in rows.
    Rows {
        /// Each a sample: the value of the input, or an object with the values of all.
        #[schema(min_items = 1)]
        instances: Vec<InputValues>,
    },
    /// Tensors in columns.
    Columns {
        /// The input with all of its samples, or an object with all inputs.
        inputs: InputValues,
    },
}

/// A data frame in parts. A model of one input takes all of its cells, in the order of the columns, or one column of arrays;
/// one of several inputs takes the column with the name of each.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only describes requests")]
pub struct SplitFrame {
    columns: Option<Vec<String>>,
    /// Without effect.
    index: Option<Vec<serde_json::Value>>,
    /// Rows of cells, all of one length.
    #[schema(min_items = 1)]
    data: Vec<Vec<InputValue>>,
}

/// What was predicted.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only describes answers")]
pub struct InvocationResponse {
    /// For tensors, an object of the outputs; for a data frame, an object of the outputs for each row.
    predictions: OutputValues,
}

/// How a prediction was asked for, and is answered.
#[derive(Debug, Clone, Copy)]
pub enum Invocation {
    Frame,
    Tensors,
}

impl Prediction for Invocation {
    const PROTOCOL: &'static str = "mlflow";

    type Head = ();

    /// # Errors
    /// [`Error::UnsupportedMediaType`].
    fn head(headers: &HeaderMap) -> Result<(), Error> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
        let given = String::from_utf8_lossy(value.as_bytes());
        if is_json(&given) { Ok(()) } else { Err(Error::UnsupportedMediaType { given: given.into_owned() }) }
    }

    /// # Errors
    /// [`Error::InvalidJson`] and those of the inputs.
    fn read((): (), body: &[u8], asked: Asked) -> Result<(Self, Arrays), Error> {
        let Body { dataframe_split, dataframe_records, instances, inputs } = read_json(body)?;
        let known = asked.loaded.predictor.inputs();
        let of_frame = |frame: Frame| Ok((Self::Frame, frame.into_tensors(known)?.into_arrays(known)?));
        match (dataframe_split, dataframe_records, instances, inputs) {
            (Some(Split(frame)), None, None, None) | (None, Some(Records(frame)), None, None) => of_frame(frame),
            (None, None, Some(Rows(tensors)), None) | (None, None, None, Some(Columns(tensors))) => {
                Ok((Self::Tensors, tensors.into_arrays(known)?))
            }
            _ => Err(Error::InvalidJson(ONE_FORM.to_owned())),
        }
    }

    fn write(self, outputs: Arrays) -> Result<Answer, Error> {
        match self {
            Self::Tensors => Answer::json(&Written { predictions: Together(&outputs) }, 0),
            Self::Frame => Answer::json(&Written { predictions: InRows::of(&outputs)?.with_scalars() }, 0),
        }
    }
}

const ONE_FORM: &str =
    "the body must be an object with exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`";

#[derive(Serialize)]
struct Written<T> {
    predictions: T,
}

/// Whether a body of the type `given` is JSON, in the one charset that JSON has.
fn is_json(given: &str) -> bool {
    let mut parts = given.split(';').map(str::trim);
    let is_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => parameter.is_empty(),
    };
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) && parts.all(is_utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_other_types() {
        for given in ["application/json", "Application/JSON", "application/json; charset=UTF-8", "application/json;"] {
            assert!(is_json(given), "{given}");
        }
        for given in [
            "text/csv",
            "",
            "application/json-lines",
            "application/json; charset=latin1",
            "application/json; format=pandas-split",
        ] {
            assert!(!is_json(given), "{given}");
        }
    }
}
