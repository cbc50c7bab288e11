//! Patterns of survivors: n of every m neighbours in a row, which hardware can skip.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most neighbours that a pattern takes together.
const MAX_OF: usize = 64;

/// At most `keep` survivors among every `of` consecutive weights of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    keep: usize,
    of: usize,
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is n:m with 1 <= n < m <= {MAX_OF}, such as 2:4, found {found:?}")]
pub struct PatternError {
    /// What was given.
    pub found: String,
}

impl Pattern {
    /// `keep` of every `of`.
    ///
    /// # Errors
    /// [`PatternError`] unless 1 <= `keep` < `of` <= 64.
    pub fn new(keep: usize, of: usize) -> Result<Self, PatternError> {
        let is_pattern = (1..of).contains(&keep) && of <= MAX_OF;
        if is_pattern { Ok(Self { keep, of }) } else { Err(PatternError { found: format!("{keep}:{of}") }) }
    }

    /// Survivors among neighbours.
    pub fn keep(self) -> usize {
        self.keep
    }

    /// Neighbours taken together.
    pub fn of(self) -> usize {
        self.of
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let fail = || PatternError { found: text.to_owned() };
        let (keep, of) = text.split_once(':').ok_or_else(fail)?;
        let (Ok(keep), Ok(of)) = (keep.parse(), of.parse()) else { return Err(fail()) };
        Self::new(keep, of)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keep, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_read_as_it_is_written_and_others_are_refused() {
        assert_eq!("2:4".parse::<Pattern>().unwrap().to_string(), "2:4");
        for text in ["4:4", "0:4", "2", "2:65", "-1:4", "a:b"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }
}
