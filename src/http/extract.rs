//! Extractors that fail with [`Error`], so that every refusal is a problem document.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

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
        JsonRejection::JsonDataError(error) => Error::InvalidBody(error.body_text()),
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
