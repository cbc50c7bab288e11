//! Inputs as they were written without a shape or a datatype: both are the model's to say.

use crate::http::Error;
use crate::http::oip::TensorError;
use crate::infer::{Array, InferError};
use crate::model::Port;

use super::{Arrays, Data};

/// The inputs of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensors {
    /// One without a name, for a model of one input.
    Unnamed(Data),
    /// By the names of the model's inputs.
    Named(Vec<(String, Data)>),
}

impl Tensors {
    /// The elements as arrays of the datatypes of `inputs`, which a model has. Whether they fit it otherwise is the predictor's
    /// to say.
    ///
    /// # Errors
    /// [`Error::UnnamedInput`], [`Error::Infer`] for an unknown name, [`Error::Tensor`].
    pub fn into_arrays(self, inputs: &[Port]) -> Result<Arrays, Error> {
        match (self, inputs) {
            (Self::Unnamed(data), [input]) => Ok(vec![to_array(input, &data)?]),
            (Self::Unnamed(_), _) => Err(Error::UnnamedInput { known: names(inputs).join(", ") }),
            (Self::Named(tensors), _) => {
                let decode = |(name, data): (String, Data)| match inputs.iter().find(|input| input.name == name) {
                    Some(input) => to_array(input, &data),
                    None => Err(InferError::UnknownInput { name, known: names(inputs) }.into()),
                };
                tensors.into_iter().map(decode).collect()
            }
        }
    }
}

fn names(inputs: &[Port]) -> Vec<String> {
    inputs.iter().map(|input| input.name.clone()).collect()
}

fn to_array(input: &Port, data: &Data) -> Result<(String, Array), Error> {
    let name = input.name.clone();
    let Ok(datatype) = input.datatype.parse() else {
        return Err(InferError::UnsupportedType { name, datatype: input.datatype.clone() }.into());
    };
    if data.count == 0 {
        return Err(TensorError::Extent { name, shape: data.extents.clone() }.into());
    }
    match data.convert(datatype) {
        Ok(values) => Ok((name, Array { dims: data.extents.clone(), data: values })),
        Err(index) => Err(TensorError::Element { name, index, value: data.elements[index], datatype }.into()),
    }
}
