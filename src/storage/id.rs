//! Identifiers of rows: UUIDs of version 7, which sort by the time they were made, kept as text in both databases.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Text that is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an identifier: a UUID was expected")]
pub struct InvalidId(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[derive(sqlx::Type, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[sqlx(transparent)]
        #[schema(value_type = String, format = "uuid")]
        pub struct $name(String);

        impl $name {
            /// Makes a fresh identifier.
            #[allow(clippy::new_without_default, reason = "a fresh identifier is not a default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7().to_string())
            }

            /// The identifier as text, in lower case with hyphens.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let id = Uuid::try_parse(text).map_err(|_| InvalidId(text.chars().take(64).collect()))?;
                Ok(Self(id.to_string()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(
    /// Identifies a model.
    ModelId
);
id!(
    /// Identifies a dataset.
    DatasetId
);
id!(
    /// Identifies a job.
    JobId
);
id!(
    /// Identifies a webhook.
    WebhookId
);
id!(
    /// Identifies a message to a webhook.
    DeliveryId
);
id!(
    /// Identifies a file that comes in parts.
    UploadId
);
id!(
    /// Identifies who owns a row; [`TenantId::default`] where there are no keys.
    TenantId
);

impl Default for TenantId {
    /// The tenant that the first migration inserts.
    fn default() -> Self {
        Self(Uuid::nil().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_normalised_and_foreign_text_is_refused() {
        let id = JobId::new();
        assert_eq!(id.to_string().to_uppercase().parse::<JobId>(), Ok(id));
        assert!("../../etc/passwd".parse::<JobId>().is_err());
        assert!("".parse::<JobId>().is_err());
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let ids: Vec<JobId> = (0..100).map(|_| JobId::new()).collect();
        assert!(ids.is_sorted());
    }
}
