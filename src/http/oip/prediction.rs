//! Requests for predictions, read.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::Error;
use crate::http::coding::Coding;
use crate::http::extract::parse_json;
use crate::infer::Array;
use crate::jobs::Loaded;
use crate::model::Port;

use super::answer::{Answer, InferResponse, ResponseOutput, ResponseParameters};
use super::binary::Tail;
use super::envelope::{Envelope, Sent};
use super::tensor::{Parameters, RequestInput};

/// A prediction to make.
#[derive(Debug, Deserialize, ToSchema)]
pub struct InferRequest {
    /// Comes back in the answer.
    id: Option<String>,
    /// `binary_data_output`: whether outputs are binary that do not say so themselves. Settings of other servers are without effect.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: Parameters,
    inputs: Vec<RequestInput>,
    /// All outputs of the model when absent.
    #[serde(default)]
    outputs: Vec<RequestOutput>,
}

/// An output that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = InferRequestedOutput)]
struct RequestOutput {
    name: String,
    /// `binary_data`: whether its elements are to be behind the JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: Parameters,
}

/// A prediction that was asked for, without its inputs.
pub struct Prediction {
    pub loaded: Loaded,
    model_name: String,
    id: Option<String>,
    wanted: Wanted,
    /// How the answer is to be compressed.
    accepted: Option<Coding>,
}

/// The outputs that were asked for.
struct Wanted {
    /// Their names, and whether they are to be binary; all outputs when empty.
    outputs: Vec<(String, bool)>,
    /// Whether outputs are to be binary that nobody named.
    is_binary: bool,
}

impl Prediction {
    /// Reads a request: what is asked for, and the inputs.
    ///
    /// # Errors
    /// [`Error::InvalidCoding`], [`Error::Binary`], [`Error::InvalidJson`] or [`Error::Tensor`] for the first fault; for the outputs, those of [`Wanted::of`].
    pub fn read(
        envelope: Envelope,
        sent: Sent,
        loaded: Loaded,
        model_name: String,
    ) -> Result<(Self, Vec<(String, Array)>), Error> {
        let body = sent.unpack()?;
        let (json, mut tail) = Tail::split(&body, envelope.json_length)?;
        let request: InferRequest = parse_json(json).map_err(as_bad_request)?;
        let inputs = request.inputs.into_iter().map(|input| input.decode(&mut tail)).collect::<Result<_, _>>()?;
        tail.finish()?;
        let wanted = Wanted::of(request.outputs, &request.parameters, loaded.predictor.outputs())?;
        Ok((Self { loaded, model_name, id: request.id, wanted, accepted: envelope.accepted }, inputs))
    }

    /// Writes the answer.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn write(self, outputs: Vec<(String, Array)>) -> Result<Answer, Error> {
        let response = InferResponse {
            model_name: self.model_name,
            model_version: self.loaded.version.to_string(),
            id: self.id,
            parameters: ResponseParameters {
                residency: self.loaded.residency,
                weights_resident_bytes: self.loaded.predictor.weights_resident_bytes(),
            },
            outputs: self.wanted.select(outputs),
        };
        response.write(self.accepted)
    }
}

/// The protocol knows 400 for every fault of a request.
fn as_bad_request(error: Error) -> Error {
    match error {
        Error::InvalidBody(detail) => Error::InvalidJson(detail),
        other => other,
    }
}

impl Wanted {
    /// What is `asked` for, before the model runs.
    ///
    /// # Errors
    /// [`Error::UnknownOutput`] and [`Error::RepeatedOutput`]; [`Error::InvalidParameter`] for one that is not true or false;
    /// [`Error::UnsupportedRequest`] for forms that are not spoken here.
    fn of(asked: Vec<RequestOutput>, parameters: &Parameters, ports: &[Port]) -> Result<Self, Error> {
        let is_binary = flag(parameters, "binary_data_output")?.unwrap_or(false);
        let mut outputs: Vec<(String, bool)> = Vec::with_capacity(asked.len().min(ports.len()));
        for RequestOutput { name, parameters } in asked {
            if ports.iter().all(|port| port.name != name) {
                let known = ports.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ");
                return Err(Error::UnknownOutput { name, known });
            }
            if outputs.iter().any(|(other, _)| *other == name) {
                return Err(Error::RepeatedOutput { name });
            }
            if parameters.contains_key("classification") {
                return Err(Error::UnsupportedRequest("the classification of outputs is not supported"));
            }
            if parameters.contains_key("shared_memory_region") {
                return Err(Error::UnsupportedRequest("shared memory is not supported"));
            }
            let is_binary = flag(&parameters, "binary_data")?.unwrap_or(is_binary);
            outputs.push((name, is_binary));
        }
        Ok(Self { outputs, is_binary })
    }

    /// The wanted ones of `outputs`, in the order they were asked for; all of them when none is named.
    fn select(self, mut outputs: Vec<(String, Array)>) -> Vec<ResponseOutput> {
        if self.outputs.is_empty() {
            return outputs.into_iter().map(|(name, array)| ResponseOutput::new(name, array, self.is_binary)).collect();
        }
        let take = |(name, is_binary): (String, bool)| {
            let position = outputs.iter().position(|(candidate, _)| *candidate == name)?;
            Some(ResponseOutput::new(name, outputs.swap_remove(position).1, is_binary))
        };
        self.outputs.into_iter().filter_map(take).collect()
    }
}

/// The parameter `name`, which is true or false where it is there.
fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, Error> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(Error::InvalidParameter(format!("the parameter {name} is {other}, not true or false"))),
    }
}
