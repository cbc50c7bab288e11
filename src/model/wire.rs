//! The protobuf wire format: a cursor that steps from field to field and checks every length against what encloses it.
//!
//! # Source
//! <https://protobuf.dev/programming-guides/encoding/>

use std::ops::Range;

use super::error::ModelError;
use super::source::Source;

const WINDOW_BYTES: u64 = 1 << 16;

/// A field of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// Field number: which member of the message.
    pub number: u32,
    /// Where its key starts.
    pub start: u64,
    pub value: Value,
}

/// What follows a key. The cursor stands behind it, but for [`Value::Bytes`] at its front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    /// Where the bytes of a string, a message or a packed list lie.
    Bytes(Range<u64>),
}

/// Steps through a [`Source`], of which it holds one small window.
pub(super) struct Cursor<'a> {
    source: &'a Source,
    window: Vec<u8>,
    window_start: u64,
    at: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, window: Vec::new(), window_start: 0, at: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Moves to `offset`; the next read checks it.
    pub(super) fn seek(&mut self, offset: u64) {
        self.at = offset;
    }

    /// The next field of the message that ends at `end`, or `None` behind its last one. After a [`Value::Bytes`] the
    /// caller reads the bytes, or seeks behind them.
    pub(super) fn field(&mut self, end: u64) -> Result<Option<Field>, ModelError> {
        if self.at >= end {
            return Ok(None);
        }
        let start = self.at;
        let key = self.varint(end)?;
        let number = u32::try_from(key >> 3).ok().filter(|&n| n > 0);
        let number = number.ok_or(ModelError::Malformed { offset: start, reason: "a field number out of range" })?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint(end)?),
            1 => Value::Fixed64(self.array(end)?),
            2 => {
                let len = self.varint(end)?;
                self.require(len, end)?;
                Value::Bytes(self.at..self.at + len)
            }
            5 => Value::Fixed32(self.array(end)?),
            _ => return Err(ModelError::Malformed { offset: start, reason: "an unknown wire type" }),
        };
        Ok(Some(Field { number, start, value }))
    }

    /// A base-128 number that ends before `end`.
    pub(super) fn varint(&mut self, end: u64) -> Result<u64, ModelError> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array(end)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ModelError::Malformed { offset: start, reason: "a varint of more than 64 bits" })
    }

    /// `N` bytes that end before `end`.
    pub(super) fn array<const N: usize>(&mut self, end: u64) -> Result<[u8; N], ModelError> {
        self.require(N as u64, end)?;
        let start = match self.at.checked_sub(self.window_start) {
            Some(start) if start + N as u64 <= self.window.len() as u64 => start as usize,
            _ => {
                self.refill()?;
                0
            }
        };
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.window[start..start + N]);
        self.at += N as u64;
        Ok(bytes)
    }

    /// Appends the bytes of `range` to `out` and moves behind them.
    pub(super) fn copy(&mut self, range: Range<u64>, out: &mut Vec<u8>) -> Result<(), ModelError> {
        self.at = range.start;
        self.require(range.end - range.start, self.source.len())?;
        self.source.stream(range.clone(), |chunk| out.extend_from_slice(chunk))?;
        self.at = range.end;
        Ok(())
    }

    /// Fails unless `needed` bytes are left before `end`, which lies in the file.
    fn require(&self, needed: u64, end: u64) -> Result<(), ModelError> {
        let found = end.min(self.source.len()).saturating_sub(self.at);
        if needed <= found { Ok(()) } else { Err(ModelError::Truncated { offset: self.at, needed, found }) }
    }

    fn refill(&mut self) -> Result<(), ModelError> {
        let len = (self.source.len() - self.at).min(WINDOW_BYTES);
        self.window.resize(len as usize, 0);
        self.source.read_exact_at(&mut self.window, self.at)?;
        self.window_start = self.at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_field(bytes: &'static [u8]) -> Result<Option<Field>, ModelError> {
        let source = Source::Memory(bytes.into());
        Cursor::new(&source).field(bytes.len() as u64)
    }

    #[test]
    fn fields_are_told_apart() {
        let field = |number, value| Some(Field { number, start: 0, value });
        // The specification's own example: field 1 = 150.
        assert_eq!(first_field(&[0x08, 0x96, 0x01]).unwrap(), field(1, Value::Varint(150)));
        assert_eq!(first_field(&[0x12, 2, 7, 7]).unwrap(), field(2, Value::Bytes(2..4)));
        assert_eq!(first_field(&[0x0d, 1, 2, 3, 4]).unwrap(), field(1, Value::Fixed32([1, 2, 3, 4])));
        assert_eq!(first_field(&[]).unwrap(), None);
    }

    #[test]
    fn a_length_past_the_end_names_its_offset() {
        let error = first_field(&[0x12, 200, 1, 7]).unwrap_err();
        assert!(matches!(error, ModelError::Truncated { offset: 3, needed: 200, found: 1 }), "{error}");
    }

    #[test]
    fn broken_keys_are_refused() {
        for bytes in [&[0x0b][..], &[0x00, 0], &[0xff; 11], &[0x08], &[0x08, 0x80]] {
            let source = Source::Memory(bytes::Bytes::copy_from_slice(bytes));
            assert!(Cursor::new(&source).field(bytes.len() as u64).is_err(), "{bytes:x?}");
        }
    }
}
