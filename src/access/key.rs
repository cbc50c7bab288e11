//! Keys: `wp_<id>_<secret>`, 16 and 64 hexadecimal digits. The id finds the row, the secret proves the right to it.
//!
//! The secret is 256 random bits, so nothing is gained by hashing it slowly: the row keeps its SHA-256, from which nobody gets it
//! back. Its first letters are fixed so that programs that look for leaked secrets know it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

const PREFIX: &str = "wp_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// The public part of a key, 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[sqlx(transparent)]
#[schema(value_type = String, pattern = "^[0-9a-f]{16}$")]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for KeyId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A whole key, secret included. It is shown once, when it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    id: KeyId,
    secret: [u8; SECRET_BYTES],
}

impl ApiKey {
    /// Makes a key by the random numbers of the system.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { id: KeyId(hex::encode(id)), secret })
    }

    /// Reads `wp_<id>_<secret>`; `None` where it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, digits) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let mut secret = [0; SECRET_BYTES];
        hex::decode_to_slice(id, &mut [0; ID_BYTES]).ok()?;
        hex::decode_to_slice(digits, &mut secret).ok()?;
        // There is one way to write a key: digits in lower case.
        Some(Self { id: KeyId(id.to_owned()), secret }).filter(|key| key.reveal() == text)
    }

    /// The whole key as text, for the one who asked for it.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, hex::encode(self.secret))
    }

    /// The public part.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// What is stored of the secret: its SHA-256 in hexadecimal digits.
    pub fn secret_sha256(&self) -> String {
        hex::encode(Sha256::digest(self.secret))
    }

    /// Whether the secret is the one that `stored` is the hash of; the time it takes does not tell how much of it is.
    pub fn is_proven_by(&self, stored: &str) -> bool {
        self.secret_sha256().as_bytes().ct_eq(stored.as_bytes()).into()
    }
}

impl fmt::Debug for ApiKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_proves_itself_alone() {
        let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let read = ApiKey::parse(&key.reveal()).unwrap();
        assert_eq!(read, key);
        assert!(read.is_proven_by(&key.secret_sha256()));
        assert!(!other.is_proven_by(&key.secret_sha256()));
        assert!(!key.is_proven_by(""));
        assert_ne!(key.id(), other.id());
    }

    #[test]
    fn the_secret_is_not_in_what_is_logged() {
        let key = ApiKey::generate().unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.id().to_string()) && !shown.contains(&key.reveal()[20..]), "{shown}");
    }

    #[test]
    fn other_text_is_no_key() {
        let id = "0123456789abcdef";
        let secret = id.repeat(4);
        assert!(ApiKey::parse(&format!("wp_{id}_{secret}")).is_some());
        let upper = secret.to_uppercase();
        for text in [
            "",
            "wp_",
            "wp__",
            id,
            &format!("wp_{id}"),
            &format!("wp_{id}_"),
            &format!("wp_{id}_{secret}0"),
            &format!("wp_{id}_{upper}"),
            &format!("xx_{id}_{secret}"),
            &format!("wp_{id}_{}", &secret[2..]),
            &format!("wp_{}é_{secret}", &id[2..]),
        ] {
            assert_eq!(ApiKey::parse(text), None, "{text}");
        }
    }
}
