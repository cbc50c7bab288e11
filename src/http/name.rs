//! Names of models and datasets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A name that matches `[A-Za-z0-9][A-Za-z0-9._-]{0,127}` and is not reserved: safe in a URL and as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", example = "digits")]
pub struct Name(String);

/// Text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It holds other characters, or too many.
    #[error("the name {given:?} does not match [A-Za-z0-9][A-Za-z0-9._-]{{0,127}}")]
    Pattern { given: String },
    /// The inference protocol gives it another meaning.
    #[error("the name `{given}` is reserved")]
    Reserved { given: String },
}

impl Name {
    /// Most characters of a name.
    pub const MAX_LENGTH: usize = 128;

    /// `/v2/models/stats` is the protocol's own.
    const RESERVED: [&'static str; 1] = ["stats"];

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let follows = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts_well || text.len() > Self::MAX_LENGTH || !text.chars().all(follows) {
            // A hostile name must not fill the answer and the log.
            return Err(NameError::Pattern { given: text.chars().take(Self::MAX_LENGTH + 1).collect() });
        }
        if Self::RESERVED.contains(&text) {
            return Err(NameError::Reserved { given: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_other_text() {
        let longest = "a".repeat(128);
        for name in ["a", "0", "lenet-300.v2_b", "Stats", &longest] {
            assert_eq!(name.parse::<Name>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        let too_long = "a".repeat(129);
        for text in ["", ".", "../x", "-a", "_a", "a/b", "a b", "é", "a\0", "stats", &too_long] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }
}
