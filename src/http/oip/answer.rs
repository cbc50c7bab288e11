//! Answers to predictions: JSON, and behind it the elements of outputs that were to be binary.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::http::Error;
use crate::http::content::OCTET_STREAM;
use crate::http::predict::{Answer, Flat, OutputValues};
use crate::infer::{Array, ArrayData, Residency};

use super::binary::JSON_LENGTH;

/// A prediction.
#[derive(Debug, Serialize, ToSchema)]
pub struct InferResponse {
    pub model_name: String,
    pub model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub parameters: ResponseParameters,
    pub outputs: Vec<ResponseOutput>,
}

/// How the prediction was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferParameters)]
pub struct ResponseParameters {
    /// How the version's weights are held in memory.
    pub residency: Residency,
    /// The memory they take.
    pub weights_resident_bytes: u64,
}

/// An output tensor of an answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferOutput)]
pub struct ResponseOutput {
    pub name: String,
    pub shape: Vec<usize>,
    #[schema(example = "FP32")]
    pub datatype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<OutputParameters>,
    /// Flat, in row-major order, `null` for a NaN or an infinity; absent where the elements are binary.
    #[serde(serialize_with = "flat", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<OutputValues>>)]
    pub data: Option<ArrayData>,
    /// The elements that go behind the JSON.
    #[serde(skip)]
    pub binary: Option<ArrayData>,
}

/// Where the elements of an output are that are not in the JSON.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InferOutputParameters)]
pub struct OutputParameters {
    /// Their bytes, behind the JSON and the binary data of the outputs before this one.
    binary_data_size: usize,
}

fn flat<S: Serializer>(data: &Option<ArrayData>, serializer: S) -> Result<S::Ok, S::Error> {
    data.as_ref().map(Flat).serialize(serializer)
}

impl ResponseOutput {
    /// The answer's form of the output `name`.
    pub fn new(name: String, array: Array, is_binary: bool) -> Self {
        let (datatype, binary_data_size) = (array.datatype().name(), array.data.size_bytes());
        let parameters = is_binary.then_some(OutputParameters { binary_data_size });
        let (data, binary) = if is_binary { (None, Some(array.data)) } else { (Some(array.data), None) };
        Self { name, shape: array.dims, datatype, parameters, data, binary }
    }
}

impl InferResponse {
    /// Writes the answer, the binary elements behind the JSON and in the order of their outputs.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn write(&self) -> Result<Answer, Error> {
        let binary = || self.outputs.iter().filter_map(|output| output.binary.as_ref());
        let answer = Answer::json(self, binary().map(ArrayData::size_bytes).sum())?;
        Ok(match binary().next() {
            None => answer,
            Some(_) => answer.followed_by(OCTET_STREAM, JSON_LENGTH, |body| {
                binary().for_each(|elements| elements.append_le_bytes(body));
            }),
        })
    }
}
