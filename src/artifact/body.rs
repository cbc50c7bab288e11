//! The bodies of graphs and plain tensors: as they are, deflated, or binned, whichever is smallest.

use std::borrow::Cow;

use bytes::Bytes;

use super::error::RecordError;
use super::inflate::{Budget, deflate, inflate};
use crate::codec::DecodeError;
use crate::codec::numbers::{self, Delta, HEADER};

/// Bytes that each byte of binned numbers may stand for; what they hold beyond is taken from the file's [`Budget`].
const DECODED_PER_BYTE: u64 = 16;

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Form {
    /// The bytes themselves.
    #[default]
    AsIs,
    /// A raw deflate stream of `bytes` once inflated.
    Deflated { bytes: u64 },
    /// The header of pco's format and binned numbers, one for each element.
    Binned,
}

/// The smallest body of `bytes`; of numbers of `width` bytes each, if that is some.
pub(super) fn smallest<'a>(bytes: &'a [u8], width: Option<usize>, budget: &mut Budget) -> (Form, Cow<'a, [u8]>) {
    let binned = width.map(|width| encode(bytes, width)).filter(|binned| binned.len() < bytes.len());
    let at_most = binned.as_ref().map_or(bytes.len(), Vec::len);
    if let Some(deflated) = deflate(bytes, at_most, budget) {
        return (Form::Deflated { bytes: bytes.len() as u64 }, deflated.into());
    }
    let claimed = |binned: &Vec<u8>| Form::Binned.claim(bytes.len() as u64, binned.len(), budget).is_ok();
    match binned.filter(claimed) {
        Some(binned) => (Form::Binned, binned.into()),
        None => (Form::AsIs, bytes.into()),
    }
}

impl Form {
    /// Takes from the file's budget what a body of `found` bytes stands for, `stored` bytes, as far as it does not pay for
    /// them.
    pub(super) fn claim(self, stored: u64, found: usize, budget: &mut Budget) -> Result<(), RecordError> {
        match self {
            Self::AsIs => Ok(()),
            Self::Deflated { bytes } => budget.claim(bytes),
            Self::Binned => budget.claim(stored.saturating_sub(DECODED_PER_BYTE * found as u64)),
        }
    }

    /// The `stored` bytes that `body` stands for, which were claimed; binned numbers are of `width` bytes each.
    pub(super) fn open(self, body: &Bytes, stored: u64, width: Option<usize>) -> Result<Bytes, RecordError> {
        let check =
            |found| if found == stored { Ok(()) } else { Err(RecordError::DataLength { needed: stored, found }) };
        match (self, width) {
            (Self::Deflated { bytes }, _) => {
                check(bytes)?;
                Ok(inflate(body, bytes)?.into())
            }
            (Self::Binned, Some(width)) => Ok(decode(body, stored, width)?.into()),
            (Self::AsIs | Self::Binned, _) => {
                check(body.len() as u64)?;
                Ok(body.clone())
            }
        }
    }
}

/// The numbers, or their differences where those are smaller, after the header.
fn encode(bytes: &[u8], width: usize) -> Vec<u8> {
    let word = |i: usize| {
        let mut word = [0; size_of::<u64>()];
        word[..width].copy_from_slice(&bytes[i * width..][..width]);
        u64::from_le_bytes(word)
    };
    let binned = |delta| numbers::encode(width, bytes.len() / width, word, delta);
    let (numbers, differences) = (binned(Delta::None), binned(Delta::Consecutive));
    let smaller = if differences.len() < numbers.len() { differences } else { numbers };
    [&HEADER[..], &smaller].concat()
}

fn decode(mut body: &[u8], stored: u64, width: usize) -> Result<Vec<u8>, DecodeError> {
    numbers::take_header(&mut body)?;
    let stored = stored as usize;
    let mut bytes = Vec::with_capacity(stored);
    numbers::decode(width, stored / width, body, |word| {
        bytes.extend_from_slice(&word.to_le_bytes()[..width]);
        Ok(())
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(form: Form, body: Cow<[u8]>, stored: usize, width: Option<usize>) -> Bytes {
        form.open(&Bytes::from(body.into_owned()), stored as u64, width).unwrap()
    }

    #[test]
    fn each_form_is_the_smallest_of_something() {
        // Repeated bytes, floats of similar size, noise.
        let repeated = b"one two three four ".repeat(20);
        let floats: Vec<u8> = (1..2000).flat_map(|i| (i as f32).sqrt().to_le_bytes()).collect();
        let few = [0x9a, 0x3c, 0x51, 0xe7];
        for (bytes, expected) in [(&repeated[..], "deflated"), (&floats, "binned"), (&few, "as is")] {
            let (form, body) = smallest(bytes, Some(4), &mut Budget::default());
            let name = match form {
                Form::AsIs => "as is",
                Form::Deflated { .. } => "deflated",
                Form::Binned => "binned",
            };
            assert_eq!(name, expected);
            assert_eq!(back(form, body, bytes.len(), Some(4)), bytes);
        }
    }

    #[test]
    fn every_bit_of_every_width_survives() {
        // NaN with payloads of both kinds, infinities, zeros of both signs, subnormals, and all else.
        let floats =
            [0x7fc0_1234u32, 0xffa0_0001, 0x7f80_0000, 0xff80_0000, 0x8000_0000, 0, 1, 0x8000_0001, 0x3f80_0000];
        let bytes: Vec<u8> = floats.iter().cycle().take(9000).flat_map(|bits| bits.to_le_bytes()).collect();
        for width in [1, 2, 4, 8] {
            let binned = encode(&bytes, width);
            assert!(binned.len() < bytes.len());
            assert_eq!(back(Form::Binned, binned.into(), bytes.len(), Some(width)), bytes);
        }
    }

    #[test]
    fn positions_are_binned_as_differences() {
        let bytes: Vec<u8> = (0..512i64).flat_map(i64::to_le_bytes).collect();
        let (form, body) = smallest(&bytes, Some(8), &mut Budget::default());
        assert_eq!(form, Form::Binned);
        assert!(body.len() < 64, "{} bytes", body.len());
    }

    #[test]
    fn what_binned_numbers_do_not_pay_for_is_taken_from_the_budget() {
        let mut budget = Budget::default();
        assert_eq!(Form::Binned.claim(1 << 30, 1 << 26, &mut budget), Ok(()));
        assert_eq!(Form::Binned.claim(1 << 26, 0, &mut budget), Ok(()));
        let refused = Form::Binned.claim(17, 1, &mut budget);
        assert_eq!(refused, Err(RecordError::InflateLimit { needed: 1, left: 0 }));
    }

    #[test]
    fn every_damage_of_binned_numbers_is_an_error_or_a_value() {
        let bytes: Vec<u8> = (0..3000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 12).to_le_bytes()).collect();
        let binned = encode(&bytes, 4);
        for len in 0..binned.len() {
            assert!(decode(&binned[..len], bytes.len() as u64, 4).is_err(), "cut to {len} bytes");
        }
        for bit in 0..binned.len() * 8 {
            let mut damaged = binned.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            for (stored, width) in [(bytes.len(), 4), (bytes.len(), 8), (bytes.len() / 2, 1)] {
                if let Ok(value) = decode(&damaged, stored as u64, width) {
                    assert_eq!(value.len(), stored);
                }
            }
        }
    }
}
