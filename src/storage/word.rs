//! Closed sets kept in text columns, under the words that serde gives them: one spelling in JSON and in the database.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::codec::CodecId;
use crate::jobs::JobKind;
use crate::model::Format;

use super::deliveries::DeliveryState;
use super::jobs::{EventKind, JobState};
use super::webhooks::Notice;

/// The word serde writes for `variant`, a unit variant.
fn word_of<T: Serialize>(variant: &T) -> Result<String, serde_json::Error> {
    match serde_json::to_value(variant)? {
        Value::String(word) => Ok(word),
        other => Err(serde::ser::Error::custom(format_args!("{other} is not a word"))),
    }
}

/// The variant that serde reads from `word`.
fn variant_of<T: DeserializeOwned>(word: String) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::String(word))
}

macro_rules! stored_as_word {
    ($($kind:ty),* $(,)?) => {$(
        impl<DB: sqlx::Database> sqlx::Type<DB> for $kind
        where
            String: sqlx::Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                <String as sqlx::Type<DB>>::type_info()
            }

            fn compatible(found: &DB::TypeInfo) -> bool {
                <String as sqlx::Type<DB>>::compatible(found)
            }
        }

        impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for $kind
        where
            String: sqlx::Encode<'q, DB>,
        {
            fn encode_by_ref(
                &self,
                buffer: &mut <DB as sqlx::Database>::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <String as sqlx::Encode<'q, DB>>::encode(word_of(self)?, buffer)
            }
        }

        impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for $kind
        where
            String: sqlx::Decode<'r, DB>,
        {
            fn decode(value: <DB as sqlx::Database>::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(variant_of(<String as sqlx::Decode<'r, DB>>::decode(value)?)?)
            }
        }
    )*};
}

stored_as_word!(CodecId, DeliveryState, EventKind, Format, JobKind, JobState, Notice);
