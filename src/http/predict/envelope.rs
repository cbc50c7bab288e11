//! How the body of a prediction is compressed, and how that of the answer may be.

use axum::http::HeaderMap;
use utoipa::{IntoParams, ToSchema};

use crate::http::Error;
use crate::http::coding::Coding;
use crate::http::limits::BodyShare;
use crate::jobs::Executor;

/// The headers of every prediction, in the API's description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "it only describes parameters")]
pub struct CodingHeaders {
    /// `gzip` or `deflate`, of a compressed body.
    #[param(rename = "Content-Encoding", inline, nullable = false)]
    content_encoding: Option<BodyCoding>,
    /// `gzip` or `deflate`, for a compressed answer.
    #[param(rename = "Accept-Encoding", nullable = false)]
    accept_encoding: Option<String>,
}

/// How a body may be compressed, in the API's description.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "it only describes a parameter")]
enum BodyCoding {
    Gzip,
    Deflate,
    Identity,
}

/// Read off the headers of a request.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    /// How the body is compressed.
    coding: Option<Coding>,
    /// How the answer is to be compressed.
    pub accepted: Option<Coding>,
}

/// A body as it arrived, which can be unpacked: there is room for it, and it ends as it should.
pub struct Sent {
    body: Vec<u8>,
    /// How it is compressed, and its bytes when it is not.
    coding: Option<(Coding, usize)>,
}

impl Envelope {
    /// What `headers` say.
    ///
    /// # Errors
    /// [`Error::UnknownCoding`].
    pub fn of(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self { coding: Coding::of_body(headers)?, accepted: Coding::accepted(headers) })
    }

    /// Makes room in `share` for what `body` inflates to, at most `limit_bytes`.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::InvalidCoding`]; those of `share` and of `executor`.
    pub async fn admit(
        &self,
        body: Vec<u8>,
        limit_bytes: usize,
        executor: &Executor,
        share: &mut BodyShare,
    ) -> Result<Sent, Error> {
        let Some(coding) = self.coding else { return Ok(Sent { body, coding: None }) };
        let count = move || coding.decoded_size(&body, limit_bytes).map(|size_bytes| (body, size_bytes));
        let (body, size_bytes) = executor.run(count).await??;
        share.charge(size_bytes).await?;
        Ok(Sent { body, coding: Some((coding, size_bytes)) })
    }
}

impl Sent {
    /// Its bytes when it is not compressed.
    pub fn size_bytes(&self) -> usize {
        self.coding.map_or(self.body.len(), |(_, size_bytes)| size_bytes)
    }

    /// The body, uncompressed; work for the executor.
    ///
    /// # Errors
    /// [`Error::InvalidCoding`].
    pub fn unpack(self) -> Result<Vec<u8>, Error> {
        match self.coding {
            None => Ok(self.body),
            Some((coding, size_bytes)) => coding.decode(&self.body, size_bytes),
        }
    }
}
