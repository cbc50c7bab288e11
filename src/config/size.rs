//! Numbers of bytes as people write them.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A number of bytes: `4096`, `512KiB`, `64MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit: u64 = match text[digits.len()..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            unit => return Err(format!("{unit:?} is not a unit: B, KiB, MiB or GiB")),
        };
        let count: u64 = digits.parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
        count.checked_mul(unit).map(Self).ok_or_else(|| format!("{text} is too large"))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Bytes(u64),
            Text(String),
        }
        match Given::deserialize(deserializer)? {
            Given::Bytes(count) => Ok(Self(count)),
            Given::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units() {
        let cases = [("0", Some(0)), ("4096", Some(4096)), ("2KiB", Some(2048)), ("1 GiB", Some(1 << 30))];
        let wrong = [("", None), ("KiB", None), ("1KB", None), ("-1", None), ("99999999999GiB", None)];
        for (text, expected) in cases.into_iter().chain(wrong) {
            assert_eq!(text.parse::<ByteSize>().ok(), expected.map(ByteSize), "{text:?}");
        }
    }
}
