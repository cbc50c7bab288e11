//! Requests for predictions, read.

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::Error;
use crate::http::predict::{self, Answer, Arrays, Asked, read_json};
use crate::model::Port;

use super::answer::{InferResponse, ResponseOutput, ResponseParameters};
use super::binary::{self, Tail};
use super::tensor::{Parameters, RequestInput};

/// A prediction to make.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"inputs": [{"name": "input", "shape": [2, 2], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}))]
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

impl InferRequest {
    /// Takes a body apart: what is asked for, without the inputs, and these.
    ///
    /// # Errors
    /// [`Error::Binary`], [`Error::InvalidJson`] or [`Error::Tensor`] for the first fault.
    fn read(body: &[u8], json_length: Option<usize>) -> Result<(Self, Arrays), Error> {
        let (json, mut tail) = Tail::split(body, json_length)?;
        let mut request: Self = read_json(json)?;
        let inputs = std::mem::take(&mut request.inputs);
        let inputs = inputs.into_iter().map(|input| input.decode(&mut tail)).collect::<Result<_, _>>()?;
        tail.finish()?;
        Ok((request, inputs))
    }
}

/// The inputs in the uncompressed body of a request for a prediction, whose first `json_length` bytes are JSON; all of them
/// where that is `None`. Each array holds as many elements as its shape says, and the body at least a byte for each.
///
/// # Errors
/// [`Error::Binary`], [`Error::InvalidJson`] or [`Error::Tensor`] for the first fault.
pub fn read_inputs(body: &[u8], json_length: Option<usize>) -> Result<Arrays, Error> {
    InferRequest::read(body, json_length).map(|(_, inputs)| inputs)
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
    asked: Asked,
    id: Option<String>,
    wanted: Wanted,
}

/// The outputs that were asked for.
struct Wanted {
    /// Their names, and whether they are to be binary; all outputs when empty.
    outputs: Vec<(String, bool)>,
    /// Whether outputs are to be binary that nobody named.
    is_binary: bool,
}

impl predict::Prediction for Prediction {
    const PROTOCOL: &'static str = "oip";

    /// Bytes of the body that are JSON; `None` for all.
    type Head = Option<usize>;

    /// # Errors
    /// [`Error::Binary`].
    fn head(headers: &HeaderMap) -> Result<Self::Head, Error> {
        Ok(binary::json_length(headers)?)
    }

    /// # Errors
    /// [`Error::Binary`], [`Error::InvalidJson`] or [`Error::Tensor`] for the first fault; for the outputs, those of [`Wanted::of`].
    fn read(json_length: Option<usize>, body: &[u8], asked: Asked) -> Result<(Self, Arrays), Error> {
        let (request, inputs) = InferRequest::read(body, json_length)?;
        let wanted = Wanted::of(request.outputs, &request.parameters, asked.loaded.predictor.outputs())?;
        Ok((Self { asked, id: request.id, wanted }, inputs))
    }

    fn write(self, outputs: Arrays) -> Result<Answer, Error> {
        let Asked { model_name, loaded } = self.asked;
        let response = InferResponse {
            model_name,
            model_version: loaded.version.to_string(),
            id: self.id,
            parameters: ResponseParameters {
                residency: loaded.residency,
                weights_resident_bytes: loaded.predictor.weights_resident_bytes(),
            },
            outputs: self.wanted.select(outputs),
        };
        response.write()
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
    fn select(self, mut outputs: Arrays) -> Vec<ResponseOutput> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bodies that can be read, and how many of their bytes are JSON: what damage starts from.
    fn bodies() -> Vec<(Vec<u8>, Option<usize>)> {
        let json = |text: &str| (text.as_bytes().to_vec(), None);
        let with_binary = |text: &str, binary: &[u8]| ([text.as_bytes(), binary].concat(), Some(text.len()));
        vec![
            json(r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3,4e0]]}]}"#),
            json(r#"{"id":"a","inputs":[{"data":[0,255],"datatype":"UINT8","shape":[1,2],"name":"x"}],"outputs":[]}"#),
            with_binary(
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#,
                &[0, 0, 128, 63, 0, 0, 0, 64],
            ),
            with_binary(
                concat!(
                    r#"{"inputs":[{"name":"i","shape":[3],"datatype":"BOOL","parameters":{"binary_data_size":3}},"#,
                    r#"{"name":"x","shape":[1],"datatype":"INT64","data":[-7]},"#,
                    r#"{"name":"h","shape":[2,1],"datatype":"FP16","parameters":{"binary_data_size":4}}]}"#,
                ),
                &[0, 1, 1, 0, 60, 0, 64],
            ),
        ]
    }

    /// What [`read_inputs`] promises of any body.
    fn check(body: &[u8], json_length: Option<usize>) -> Result<(), TestCaseError> {
        let Ok(inputs) = read_inputs(body, json_length) else { return Ok(()) };
        for (name, array) in &inputs {
            prop_assert!(array.check().is_ok(), "{name}");
        }
        let elements: usize = inputs.iter().map(|(_, array)| array.dims.iter().product::<usize>()).sum();
        prop_assert!(elements <= body.len(), "{elements} elements in {} bytes", body.len());
        Ok(())
    }

    #[test]
    fn whole_bodies_are_read_and_shorter_ones_are_not() {
        for (body, json_length) in bodies() {
            assert!(read_inputs(&body, json_length).is_ok());
            for length in 0..body.len() {
                assert!(read_inputs(&body[..length], json_length).is_err(), "{length}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_arrays(
            body in prop::collection::vec(any::<u8>(), 0..200),
            json_length in prop::option::of(0usize..220),
        ) {
            check(&body, json_length)?;
        }

        #[test]
        fn damaged_bodies_are_an_error_or_arrays(
            which in 0usize..4,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            digits in prop::option::of((any::<prop::sample::Index>(), "[0-9]{1,20}")),
            shift in -3isize..4,
        ) {
            let (mut body, json_length) = bodies().swap_remove(which);
            for (at, byte) in edits {
                let at = at.index(body.len());
                body[at] = byte;
            }
            if let Some((at, digits)) = digits {
                // A number that grows: extents and sizes beyond what is there.
                let numbers: Vec<usize> = (0..body.len()).filter(|&at| body[at].is_ascii_digit()).collect();
                if !numbers.is_empty() {
                    let at = numbers[at.index(numbers.len())];
                    body.splice(at..=at, digits.bytes());
                }
            }
            check(&body, json_length.map(|length| length.saturating_add_signed(shift)))?;
        }
    }
}
