//! Gaps: how many cells lie between an entry and the one before, as a class and some bits that follow as they are.
//!
//! | gap | class | bits that follow |
//! |---|---|---|
//! | below 128 | the gap | 0 |
//! | `2^o` to `2^(o+1) - 1`, o from 7 to 30 | 128 + 4 (o - 7) + the 2 bits below the leading one | the o - 2 bits below those |

use super::super::bits::BitWriter;

/// Gaps below are classes of their own: a class has its top bit set where bits follow.
pub(super) const FIRST_LONG: u8 = 1 << 7;

/// Number of classes. The longest gap is 2^31 - 1.
pub(super) const CLASSES: usize = 128 + 4 * 24;

/// The class of `gap`, below 2^31.
#[inline]
pub(super) fn class(gap: u32) -> u8 {
    if gap < u32::from(FIRST_LONG) {
        return gap as u8;
    }
    let octave = gap.ilog2();
    (128 + 4 * (octave - 7) + (gap >> (octave - 2) & 3)) as u8
}

/// Bits that follow `class`.
#[inline]
pub(super) fn extra_bits(class: u8) -> u32 {
    if class < FIRST_LONG { 0 } else { u32::from(class - FIRST_LONG) / 4 + 5 }
}

/// Appends the bits that follow the class of `gap`.
#[inline]
pub(super) fn push_extra(gap: u32, bits: &mut BitWriter) {
    let extra = extra_bits(class(gap));
    bits.push(gap & ((1 << extra) - 1), extra);
}

/// The gap of `class`, with the bits that follow it.
#[inline]
pub(super) fn gap(class: u8, extra: u32) -> u32 {
    if class < FIRST_LONG {
        return u32::from(class);
    }
    (4 | u32::from(class) & 3) << extra_bits(class) | extra
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_their_class_and_the_bits_that_follow() {
        for (value, of_class, bits) in
            [(0, 0, 0), (127, 127, 0), (128, 128, 5), (159, 128, 5), (160, 129, 5), (256, 132, 6)]
        {
            assert_eq!((class(value), extra_bits(class(value))), (of_class, bits), "{value}");
        }
        assert_eq!((class(i32::MAX as u32), extra_bits(223)), (223, 28));
        assert_eq!(CLASSES, 224);
    }

    #[test]
    fn every_gap_leads_back_to_itself() {
        let near_powers = (0..31).flat_map(|o| [(1u32 << o) - 1, 1 << o, (1 << o) + 1, 3 << o >> 1]);
        for value in (0..5_000).chain(near_powers) {
            let extra = value & ((1 << extra_bits(class(value))) - 1);
            assert_eq!(gap(class(value), extra), value);
        }
    }
}
