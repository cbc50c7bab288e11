//! Answers to predictions, as they are sent.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::Error;
use crate::http::coding::Coding;

/// Room for the JSON of an answer without elements, in bytes; more is made if need be.
const HEAD_BYTES: usize = 1 << 10;

/// The answer to a prediction.
pub struct Answer {
    body: Vec<u8>,
    content_type: HeaderValue,
    /// A header of the protocol.
    header: Option<(HeaderName, HeaderValue)>,
    /// How `body` is compressed.
    coding: Option<Coding>,
}

impl Answer {
    /// An answer in JSON; `more_bytes` of something else are to come behind it.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn json(value: &impl Serialize, more_bytes: usize) -> Result<Self, Error> {
        let mut body = Vec::with_capacity(HEAD_BYTES + more_bytes);
        serde_json::to_writer(&mut body, value).map_err(Error::internal)?;
        Ok(Self { body, content_type: HeaderValue::from_static("application/json"), header: None, coding: None })
    }

    /// The same with what `append` puts behind its JSON, as `content_type`; the header `length` says where that begins.
    #[must_use]
    pub fn followed_by(
        mut self,
        content_type: HeaderValue,
        length: HeaderName,
        append: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let header = Some((length, self.body.len().into()));
        append(&mut self.body);
        Self { content_type, header, ..self }
    }

    /// The same, compressed as is `accepted`, where it gains by that. Work for the executor.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn compressed(self, accepted: Option<Coding>) -> Result<Self, Error> {
        match accepted.map(|coding| coding.encode(&self.body)).transpose()?.flatten() {
            Some(body) => Ok(Self { body, coding: accepted, ..self }),
            None => Ok(self),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let coding = self.coding.map(|coding| (header::CONTENT_ENCODING, HeaderValue::from_static(coding.name())));
        let headers = [Some((header::CONTENT_TYPE, self.content_type)), self.header, coding];
        (HeaderMap::from_iter(headers.into_iter().flatten()), self.body).into_response()
    }
}
