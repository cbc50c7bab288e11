//! Metadata: what users note about their models and jobs, and find them by.
//!
//! The pairs are kept twice: whole in the row that they describe, which is where they are read, and one by one in a table
//! (`job_metadata`, `model_metadata`) whose index lists look into.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// At most 32 pairs of a key, which matches `[A-Za-z0-9][A-Za-z0-9._/-]{0,62}`, and a value of at most 512 characters, none
/// of them NUL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Metadata(BTreeMap<String, String>);

/// What is to change about metadata, as a JSON merge patch (RFC 7396): null removes a key, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Option<BTreeMap<String, Option<String>>>")]
pub struct MetadataPatch(Option<BTreeMap<String, Option<String>>>);

/// Pairs that are no metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// A key holds other characters, or too many.
    #[error("the key {given:?} does not match [A-Za-z0-9][A-Za-z0-9._/-]{{0,62}}")]
    Key { given: String },
    /// A value is too long.
    #[error("the value of {key} has {found} characters, {} at most are kept", Metadata::MAX_VALUE)]
    Value { key: String, found: usize },
    /// A value holds the character NUL, which Postgres has not.
    #[error("the value of {key} holds the character NUL")]
    Nul { key: String },
    /// There are too many pairs.
    #[error("there are {found} pairs, {} at most are kept", Metadata::MAX_PAIRS)]
    TooMany { found: usize },
}

impl Metadata {
    /// Most pairs.
    const MAX_PAIRS: usize = 32;
    /// Most characters of a key, which are bytes too.
    const MAX_KEY: usize = 63;
    /// Most characters of a value.
    const MAX_VALUE: usize = 512;

    /// None at all.
    pub fn none() -> &'static Self {
        static NONE: Metadata = Metadata(BTreeMap::new());
        &NONE
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The condition that a row has all of these pairs: `lookup`, a subquery of its pairs that ends before they are named,
    /// once for each. Their parameters, key and value in turns, count from `$first`.
    pub(super) fn condition(&self, lookup: &'static str, first: usize) -> String {
        let mut condition = String::new();
        for key in (first..).step_by(2).take(self.0.len()) {
            // Writing to a string cannot fail.
            let _ = write!(condition, " {lookup} AND key = ${key} AND value = ${})", key + 1);
        }
        condition
    }
}

impl TryFrom<BTreeMap<String, String>> for Metadata {
    type Error = MetadataError;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, MetadataError> {
        if pairs.len() > Self::MAX_PAIRS {
            return Err(MetadataError::TooMany { found: pairs.len() });
        }
        pairs.keys().try_for_each(|key| check_key(key))?;
        pairs.iter().try_for_each(|(key, value)| check_value(key, value))?;
        Ok(Self(pairs))
    }
}

impl MetadataPatch {
    /// What `metadata` is after the change.
    ///
    /// # Errors
    /// [`MetadataError::TooMany`].
    pub(super) fn applied_to(&self, metadata: Metadata) -> Result<Metadata, MetadataError> {
        let Some(changes) = &self.0 else { return Ok(Metadata::default()) };
        let mut pairs = metadata.0;
        for (key, value) in changes {
            match value {
                Some(value) => pairs.insert(key.clone(), value.clone()),
                None => pairs.remove(key),
            };
        }
        pairs.try_into()
    }
}

impl TryFrom<Option<BTreeMap<String, Option<String>>>> for MetadataPatch {
    type Error = MetadataError;

    fn try_from(changes: Option<BTreeMap<String, Option<String>>>) -> Result<Self, MetadataError> {
        for (key, value) in changes.iter().flatten() {
            check_key(key)?;
            value.as_ref().map_or(Ok(()), |value| check_value(key, value))?;
        }
        Ok(Self(changes))
    }
}

fn check_key(key: &str) -> Result<(), MetadataError> {
    let follows = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    let starts_well = key.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts_well || key.len() > Metadata::MAX_KEY || !key.chars().all(follows) {
        // A hostile key must not fill the answer and the log.
        return Err(MetadataError::Key { given: key.chars().take(Metadata::MAX_KEY + 1).collect() });
    }
    Ok(())
}

fn check_value(key: &str, value: &str) -> Result<(), MetadataError> {
    let found = value.chars().count();
    if found > Metadata::MAX_VALUE {
        return Err(MetadataError::Value { key: key.to_owned(), found });
    }
    if value.contains('\0') {
        return Err(MetadataError::Nul { key: key.to_owned() });
    }
    Ok(())
}

/// Stores the pairs of a row one by one, by the statement `$sql`; inside the transaction that stores them whole.
macro_rules! insert_pairs {
    ($store:expr, $tx:ident, $sql:expr, $row:expr, $metadata:expr) => {
        for (key, value) in $metadata.iter() {
            sqlx::query($sql).bind(&$store.tenant).bind($row).bind(key).bind(value).execute(&mut *$tx).await?;
        }
    };
}

pub(super) use insert_pairs;

pub(super) const INSERT_OF_JOB: &str =
    "INSERT INTO job_metadata (tenant_id, job_id, key, value) VALUES ($1, $2, $3, $4)";

pub(super) const INSERT_OF_MODEL: &str =
    "INSERT INTO model_metadata (tenant_id, model_id, key, value) VALUES ($1, $2, $3, $4)";

/// An object with such keys, and values of the type `values`.
fn schema_of(values: SchemaType) -> ObjectBuilder {
    let keys = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"));
    let values = ObjectBuilder::new().schema_type(values).max_length(Some(Metadata::MAX_VALUE));
    ObjectBuilder::new().property_names(Some(keys.build())).additional_properties(Some(values))
}

impl PartialSchema for Metadata {
    fn schema() -> RefOr<Schema> {
        let pairs = schema_of(Type::String.into()).schema_type(Type::Object).max_properties(Some(Self::MAX_PAIRS));
        pairs.description(Some("What users note, and find it by: at most 32 keys and their values.")).into()
    }
}

impl ToSchema for Metadata {}

impl PartialSchema for MetadataPatch {
    fn schema() -> RefOr<Schema> {
        let changes = schema_of([Type::String, Type::Null].into_iter().collect());
        let changes = changes.schema_type(SchemaType::from_iter([Type::Object, Type::Null]));
        changes.description(Some("Keys and their new values; null removes a key, and null alone all of them.")).into()
    }
}

impl ToSchema for MetadataPatch {}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn metadata(pairs: Value) -> Result<Metadata, String> {
        serde_json::from_value(pairs).map_err(|error| error.to_string())
    }

    fn patch(changes: Value) -> Result<MetadataPatch, String> {
        serde_json::from_value(changes).map_err(|error| error.to_string())
    }

    fn many(pairs: usize) -> Value {
        (0..pairs).map(|index| (format!("k{index}"), json!("v"))).collect()
    }

    #[test]
    fn keys_and_values_are_told_from_other_text() {
        let (longest_key, longest_value) = ("k".repeat(63), "é".repeat(512));
        for key in ["a", "0", "git.sha", "team/owner", "A-b_c", &longest_key] {
            assert!(metadata(json!({(key): longest_value})).is_ok(), "{key}");
        }
        assert!(metadata(json!({"empty": ""})).is_ok());
        let too_long = "k".repeat(64);
        for key in ["", ".a", "/", "-", "_", "a b", "é", "a\0", "a=b", &too_long] {
            assert!(metadata(json!({(key): "v"})).expect_err("no key").contains("does not match"), "{key:?}");
        }
        assert!(metadata(json!({"k": "é".repeat(513)})).expect_err("too long").contains("513"));
        assert!(metadata(json!({"k": "a\0"})).expect_err("NUL").contains("NUL"));
        assert!(metadata(json!({"k": 7})).is_err());
        assert!(metadata(many(32)).is_ok());
        assert!(metadata(many(33)).expect_err("too many").contains("33"));
    }

    #[test]
    fn a_patch_merges_and_null_removes() {
        let before = metadata(json!({"a": "1", "b": "2"})).unwrap();
        let cases = [
            (json!({}), json!({"a": "1", "b": "2"})),
            (json!({"b": "3", "c": "4"}), json!({"a": "1", "b": "3", "c": "4"})),
            (json!({"a": null, "x": null}), json!({"b": "2"})),
            (json!(null), json!({})),
        ];
        for (changes, after) in cases {
            let changed = patch(changes.clone()).unwrap().applied_to(before.clone());
            assert_eq!(changed, Ok(metadata(after).unwrap()), "{changes}");
        }
        let full = metadata(many(32)).unwrap();
        assert!(patch(json!({"new": "v"})).unwrap().applied_to(full.clone()).is_err());
        assert!(patch(json!({"new": "v", "k0": null})).unwrap().applied_to(full).is_ok());
        assert!(patch(json!({"a b": null})).is_err() && patch(json!({"a": "\0"})).is_err());
    }

    #[test]
    fn a_condition_counts_its_parameters() {
        let two = metadata(json!({"a": "1", "b": "2"})).unwrap();
        let condition = two.condition("AND id IN (SELECT x FROM y WHERE z", 7);
        assert_eq!(
            condition,
            " AND id IN (SELECT x FROM y WHERE z AND key = $7 AND value = $8) \
             AND id IN (SELECT x FROM y WHERE z AND key = $9 AND value = $10)"
        );
    }
}
