//! Secrets of webhooks: `whsec_` and the base64 of 24 to 64 random bytes, with which messages are signed.
//!
//! Source: "Standard Webhooks", section "Signature scheme"; HMAC: RFC 2104.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
const RANDOM_BYTES: usize = 32;

/// What signs the messages to a webhook, as text. It is shown once, when it is made.
#[derive(Clone, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Secret(String);

impl Secret {
    /// Makes a secret by the random numbers of the system.
    ///
    /// # Errors
    /// When the system has none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{PREFIX}{}", STANDARD.encode(bytes))))
    }

    /// The whole secret as text, for the one who asked for it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The signature of a message, `v1,<base64>`: its id, the second since 1970 at which it is sent, and its body. `None` where
    /// the secret is none.
    pub(super) fn sign(&self, id: &str, sent_at: u64, body: &[u8]) -> Option<String> {
        let key = STANDARD.decode(self.0.strip_prefix(PREFIX)?).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{id}.{sent_at}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

impl fmt::Debug for Secret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_published_example() {
        let secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn a_secret_is_random_and_long_enough() {
        let (secret, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(secret, other);
        let bytes = STANDARD.decode(secret.reveal().strip_prefix(PREFIX).unwrap()).unwrap();
        assert!((24..=64).contains(&bytes.len()));
    }

    #[test]
    fn the_secret_is_not_in_what_is_logged() {
        let secret = Secret::generate().unwrap();
        assert!(!format!("{secret:?}").contains(&secret.reveal()[6..]));
    }

    #[test]
    fn what_is_no_secret_signs_nothing() {
        for text in ["", "whsec_", "abc", "whsec_?"] {
            let signed = Secret(text.to_owned()).sign("a", 1, b"").is_some();
            assert_eq!(signed, text == "whsec_", "{text}");
        }
    }
}
