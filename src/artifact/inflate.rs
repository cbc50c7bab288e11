//! Deflate with a budget: what a file may inflate to is bounded before a byte of it is allocated.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::error::RecordError;

/// What all deflated records of a file together may inflate to. Writers store the rest as it is.
pub(super) const INFLATE_LIMIT_BYTES: u64 = 64 << 20;

/// What is left of [`INFLATE_LIMIT_BYTES`].
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: INFLATE_LIMIT_BYTES }
    }
}

impl Budget {
    /// Sets `bytes` aside.
    pub(super) fn claim(&mut self, bytes: u64) -> Result<(), RecordError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(RecordError::InflateLimit { needed: bytes, left: self.left }),
        }
    }
}

/// `bytes` as a raw deflate stream (RFC 1951), or `None` where that and its length do not take less than `below` bytes, or
/// the budget is spent.
pub(super) fn deflate(bytes: &[u8], below: usize, budget: &mut Budget) -> Option<Vec<u8>> {
    if bytes.len() as u64 > budget.left {
        return None;
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let deflated = encoder.write_all(bytes).and_then(|()| encoder.finish()).ok()?;
    let smaller = deflated.len() + super::wire::varint_len(bytes.len() as u64) < below;
    (smaller && budget.claim(bytes.len() as u64).is_ok()).then_some(deflated)
}

/// Inflates `bytes` to exactly `needed` bytes, which the caller has claimed from a [`Budget`].
pub(super) fn inflate(bytes: &[u8], needed: u64) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::new();
    let mut decoder = DeflateDecoder::new(bytes);
    // One byte more than claimed shows a stream that lies; the vector grows with what really arrives.
    let read = decoder.by_ref().take(needed + 1).read_to_end(&mut out);
    let whole = decoder.total_in() == bytes.len() as u64;
    if read.is_ok() && out.len() as u64 == needed && whole { Ok(out) } else { Err(RecordError::Inflate { needed }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_lies_about_its_length_is_refused() {
        let deflated = deflate(&[7; 1000], 1000, &mut Budget::default()).unwrap();
        assert_eq!(inflate(&deflated, 1000), Ok(vec![7; 1000]));
        for claim in [0, 999, 1001] {
            assert_eq!(inflate(&deflated, claim), Err(RecordError::Inflate { needed: claim }));
        }
        assert!(inflate(&deflated[..deflated.len() - 1], 1000).is_err());
    }

    #[test]
    fn the_budget_is_shared_by_all_records() {
        let mut budget = Budget::default();
        assert!(budget.claim(INFLATE_LIMIT_BYTES - 1).is_ok());
        assert_eq!(budget.claim(2), Err(RecordError::InflateLimit { needed: 2, left: 1 }));
        assert!(deflate(&[0; 100], 100, &mut budget).is_none(), "a spent budget stores as it is");
    }
}
