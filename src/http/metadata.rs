//! Metadata in a query string, as `metadata.KEY=VALUE`: of an upload, and of what a list is to show.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::storage::Metadata;

use super::{Error, extract};

/// What stands before a key.
const PREFIX: &str = "metadata.";

/// The pairs that a query string names.
pub struct MetadataQuery(pub Metadata);

impl<S: Send + Sync> FromRequestParts<S> for MetadataQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let extract::Query(parameters) =
            extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let mut pairs = BTreeMap::new();
        for (name, value) in parameters {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            if pairs.insert(key.to_owned(), value).is_some() {
                // A hostile key must not fill the answer and the log.
                let name: String = name.chars().take(80).collect();
                return Err(Error::InvalidParameter(format!("{name} is given twice")));
            }
        }
        let metadata = Metadata::try_from(pairs);
        metadata.map(Self).map_err(|error| Error::InvalidParameter(format!("metadata: {error}")))
    }
}
