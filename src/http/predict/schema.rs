//! How inputs without a shape and a datatype are described, and outputs that are written like them.

use std::borrow::Cow;

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// An input or a sample of it, or an object of them.
pub struct InputValues;

/// An output or a sample of it, or an object of them.
pub struct OutputValues;

fn a(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

/// Values, arrays of them, and objects of both.
fn values<T: ToSchema>() -> OneOfBuilder {
    let each = || RefOr::<Schema>::from(Ref::from_schema_name(T::name()));
    let object = a(Type::Object).additional_properties(Some(each()));
    OneOfBuilder::new()
        .item(a(Type::Number))
        .item(a(Type::Boolean))
        .item(ArrayBuilder::new().items(each()))
        .item(object)
}

impl PartialSchema for InputValues {
    fn schema() -> RefOr<Schema> {
        let description = "A number or a boolean, nested arrays of them, or an object of these by the names of inputs.";
        values::<Self>().description(Some(description)).into()
    }
}

impl ToSchema for InputValues {
    fn name() -> Cow<'static, str> {
        "InputValues".into()
    }
}

impl PartialSchema for OutputValues {
    fn schema() -> RefOr<Schema> {
        let description = "A number or a boolean (`null`: a NaN or an infinity), nested arrays of them, or an object of these \
                           by the names of outputs.";
        values::<Self>().item(a(Type::Null)).description(Some(description)).into()
    }
}

impl ToSchema for OutputValues {
    fn name() -> Cow<'static, str> {
        "OutputValues".into()
    }
}
