//! `Repr-Digest`, the header that carries the SHA-256 of a representation, and the entity tag made from it.
//!
//! Source: RFC 9530 (digest fields) over RFC 8941 (structured fields, section 3.3.5: byte sequences).

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Error;

/// The header's name.
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Reads the SHA-256 that a client declared, as lower-case hex; `None` when it declared none.
///
/// # Errors
/// [`Error::InvalidDigest`] when the header is not a dictionary of byte sequences, when its SHA-256 is not 32 bytes, or
/// when it holds only algorithms that the service does not know: a promise that cannot be checked is refused.
pub fn declared_sha256(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(&REPR_DIGEST) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::InvalidDigest { reason: "is not ASCII" })?;
    for member in text.split(',') {
        let (algorithm, digest) = member.trim().split_once('=').ok_or(Error::InvalidDigest { reason: "has no `=`" })?;
        if algorithm == "sha-256" {
            return parse_byte_sequence(digest).map(Some);
        }
    }
    Err(Error::InvalidDigest { reason: "names no sha-256, the one algorithm that is verified" })
}

fn parse_byte_sequence(text: &str) -> Result<String, Error> {
    let base64 = text
        .strip_prefix(':')
        .and_then(|rest| rest.strip_suffix(':'))
        .ok_or(Error::InvalidDigest { reason: "has no colons around its base64" })?;
    let bytes = BASE64.decode(base64).map_err(|_| Error::InvalidDigest { reason: "is not base64" })?;
    if bytes.len() != 32 {
        return Err(Error::InvalidDigest { reason: "is not 32 bytes long" });
    }
    Ok(hex::encode(bytes))
}

/// The value of `Repr-Digest` for a representation with this SHA-256 (64 hex digits).
pub fn repr_digest(sha256: &str) -> HeaderValue {
    ascii(format!("sha-256=:{}:", BASE64.encode(hex::decode(sha256).expect("a digest is stored in hex"))))
}

/// The strong entity tag of a representation with this SHA-256.
pub fn entity_tag(sha256: &str) -> HeaderValue {
    ascii(format!("\"{sha256}\""))
}

/// True when `If-None-Match` lists `tag`, by the weak comparison that RFC 9110 section 13.1.2 asks for, or is `*`.
pub fn none_match(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get_all(axum::http::header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|listed| listed == "*" || listed.trim_start_matches("W/").as_bytes() == tag)
    })
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digests are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_FIELD: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    fn declared(value: &'static str) -> Result<Option<String>, Error> {
        declared_sha256(&HeaderMap::from_iter([(REPR_DIGEST, HeaderValue::from_static(value))]))
    }

    #[test]
    fn digest_of_nothing_round_trips() {
        assert_eq!(repr_digest(EMPTY), EMPTY_FIELD);
        assert_eq!(declared(EMPTY_FIELD).unwrap().as_deref(), Some(EMPTY));
        assert_eq!(declared_sha256(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn other_algorithms_may_stand_beside_sha_256() {
        let value = "sha-512=:AAAA:, sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        assert_eq!(declared(value).unwrap().as_deref(), Some(EMPTY));
    }

    #[test]
    fn malformed_digests_are_refused() {
        for value in ["", "sha-256", "sha-256=abc", "sha-256=:!:", "sha-256=:AAAA:", "md5=:AAAA:"] {
            assert!(declared(value).is_err(), "{value}");
        }
    }

    #[test]
    fn entity_tags_match_weakly() {
        let tag = entity_tag(EMPTY);
        for (value, expected) in [("*", true), ("\"x\"", false), (&*format!("\"x\", W/\"{EMPTY}\""), true)] {
            let header = HeaderValue::from_str(value).unwrap();
            let headers = HeaderMap::from_iter([(axum::http::header::IF_NONE_MATCH, header)]);
            assert_eq!(none_match(&headers, &tag), expected, "{value}");
        }
    }
}
