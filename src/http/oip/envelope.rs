//! What the headers of a prediction say about its body, and about the body of the answer.

use axum::http::HeaderMap;

use crate::http::Error;
use crate::http::coding::Coding;
use crate::http::limits::BodyShare;
use crate::jobs::Executor;

use super::binary::json_length;

/// Read off the headers of a request.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    /// How the body is compressed.
    coding: Option<Coding>,
    /// Bytes of the uncompressed body that are JSON; `None` for all.
    pub json_length: Option<usize>,
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
    /// [`Error::UnknownCoding`], [`Error::Binary`].
    pub fn of(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self {
            coding: Coding::of_body(headers)?,
            json_length: json_length(headers)?,
            accepted: Coding::accepted(headers),
        })
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
