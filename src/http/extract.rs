//! Extractors that fail with [`Error`], so that every refusal is a problem document.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Unexpected, Visitor};

use super::{Error, body};

/// Largest JSON body but for predictions, in bytes.
const JSON_LIMIT_BYTES: usize = 1 << 20;

/// Parameters of the route's path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| Error::InvalidParameter(rejection.body_text()))
    }
}

/// Parameters of the query string.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection| Error::InvalidParameter(rejection.body_text()))
    }
}

/// A JSON body, whatever its `Content-Type`: clients of the Open Inference Protocol send none.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        body::refuse_declared(request.headers(), JSON_LIMIT_BYTES as u64)?;
        let bytes = body::collect(request.into_body(), JSON_LIMIT_BYTES, None).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Reads `bytes` as a JSON object.
///
/// # Errors
/// [`Error::InvalidJson`] for what is not JSON, or nested too deep; [`Error::InvalidBody`], with the path of the member,
/// for JSON that says something else.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    use axum::extract::rejection::JsonRejection;
    // Keeping the path of each member costs more than reading a number: it is kept when there is a fault to name.
    if let Ok(Object(value)) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    axum::Json::<Object<T>>::from_bytes(bytes).map(|json| json.0.0).map_err(|rejection| match rejection {
        // The fault itself, without a word on the types that it was to become.
        JsonRejection::JsonDataError(error) => {
            let fault = std::error::Error::source(&error).map(ToString::to_string);
            Error::InvalidBody(fault.unwrap_or_else(|| error.body_text()))
        }
        other => Error::InvalidJson(other.body_text()),
    })
}

/// A JSON object. What serde derives takes an array of the members too, in the order of the source code, which no description
/// of an API allows.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// An integer; also one that is written with a fraction of zero, as JSON Schema has it.
///
/// # Errors
/// For every other value, and for one that `T` does not hold.
pub fn whole<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(value)| value)
}

/// [`whole`], or `null`.
///
/// # Errors
/// As [`whole`].
pub fn optional_whole<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map(|Whole(value)| value))
}

struct Whole<T>(T);

impl<'de, T: TryFrom<i64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor(PhantomData)).map(Self)
    }
}

struct WholeVisitor<T>(PhantomData<T>);

impl<T: TryFrom<i64>> Visitor<'_> for WholeVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer in its range")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<T, E> {
        T::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<T, E> {
        let signed = i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))?;
        self.visit_i64(signed)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<T, E> {
        /// Up to here every integer is a float.
        const MAX: f64 = 9_007_199_254_740_992.0;
        if value.fract() != 0.0 || value.abs() > MAX {
            return Err(E::invalid_type(Unexpected::Float(value), &self));
        }
        self.visit_i64(value as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "whole")]
        signed: i64,
        #[serde(default, deserialize_with = "optional_whole")]
        unsigned: Option<u64>,
    }

    fn read(json: &str) -> Result<Numbers, String> {
        parse_json(json.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        assert_eq!(read(r#"{"signed": -2.0, "unsigned": 1e3}"#), Ok(Numbers { signed: -2, unsigned: Some(1000) }));
        assert_eq!(read(r#"{"signed": 7, "unsigned": null}"#), Ok(Numbers { signed: 7, unsigned: None }));
        for wrong in ["1.5", "1e300", "9223372036854775808", "\"1\"", "null", "true"] {
            assert!(read(&format!(r#"{{"signed": {wrong}}}"#)).is_err(), "{wrong}");
        }
        assert!(
            read(r#"{"signed": 1, "unsigned": -1}"#).unwrap_err().contains("unsigned: invalid value: integer `-1`")
        );
    }

    #[test]
    fn an_object_is_no_array_of_its_members() {
        assert!(read("[1, 2]").unwrap_err().contains("invalid type: sequence, expected an object"));
    }
}
