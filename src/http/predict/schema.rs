//! How inputs without a shape and a datatype are described, and outputs that are written like them.

use std::borrow::Cow;

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Data;

/// An input or a sample of it, without a name.
pub struct InputValue;

/// The same, or an object of them by the names of inputs.
pub struct InputValues;

/// An output or a sample of it, or an object of them by the names of outputs.
pub struct OutputValues;

fn a(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

fn the<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

fn object_of<T: ToSchema>() -> ObjectBuilder {
    a(Type::Object).additional_properties(Some(the::<T>()))
}

/// A value, or arrays of values.
fn input_value() -> OneOfBuilder {
    OneOfBuilder::new().item(a(Type::Number)).item(a(Type::Boolean)).item(the::<Data>())
}

impl PartialSchema for InputValue {
    fn schema() -> RefOr<Schema> {
        input_value().description(Some("A number or a boolean, or nested arrays of them.")).into()
    }
}

impl ToSchema for InputValue {
    fn name() -> Cow<'static, str> {
        "InputValue".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Data::name().into_owned(), Data::schema()));
    }
}

impl PartialSchema for InputValues {
    fn schema() -> RefOr<Schema> {
        let description = "A number or a boolean, nested arrays of them, or an object of these by the names of inputs.";
        input_value().item(object_of::<InputValue>()).description(Some(description)).into()
    }
}

impl ToSchema for InputValues {
    fn name() -> Cow<'static, str> {
        "InputValues".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((InputValue::name().into_owned(), InputValue::schema()));
        InputValue::schemas(schemas);
    }
}

impl PartialSchema for OutputValues {
    fn schema() -> RefOr<Schema> {
        let description = "A number or a boolean (`null`: a NaN or an infinity), nested arrays of them, or an object of these \
                           by the names of outputs.";
        let scalars = OneOfBuilder::new().item(a(Type::Number)).item(a(Type::Boolean)).item(a(Type::Null));
        let nested = ArrayBuilder::new().items(the::<Self>());
        scalars.item(nested).item(object_of::<Self>()).description(Some(description)).into()
    }
}

impl ToSchema for OutputValues {
    fn name() -> Cow<'static, str> {
        "OutputValues".into()
    }
}
