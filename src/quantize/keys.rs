//! f32 values as integers of the same order, and a fast search among sorted ones.
//!
//! The order is IEEE 754's total order: -0.0 comes just before +0.0. On integers a search needs no care for signed
//! zeros, and a table over the leading bits answers most questions at once.

/// The integer that orders as `value` does.
pub(super) fn key_of(value: f32) -> u32 {
    let bits = value.to_bits();
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

/// The value of a key; the inverse of [`key_of`].
pub(super) fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

/// As [`key_of`], for f64.
pub(super) fn key_of_f64(value: f64) -> u64 {
    let bits = value.to_bits();
    bits ^ ((bits as i64 >> 63) as u64 | 1 << 63)
}

/// As [`value_of`], for f64.
pub(super) fn value_of_f64(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key ^ 1 << 63 } else { !key })
}

/// The smallest f32 that is not below `bound`: an f32 is at or above either or neither.
pub(super) fn ceil_f32(bound: f64) -> f32 {
    let nearest = bound as f32;
    if f64::from(nearest) < bound { nearest.next_up() } else { nearest }
}

/// Fewest buckets of a search table: 16 KiB, within a first-level cache.
const MIN_BUCKETS: usize = 1 << 12;

/// The line of keys cut into intervals at ascending bounds, with a table that finds a key's interval.
#[derive(Debug, Clone)]
pub(super) struct Intervals {
    /// Interval `i` ends before `bounds[i]`, and interval `i + 1` starts there.
    bounds: Vec<u32>,
    /// Keys that share `(key - bounds[0]) >> shift` share a bucket.
    shift: u32,
    /// Number of bounds before each bucket, and their total at the end.
    before: Vec<u32>,
}

impl Intervals {
    /// Cuts at `bounds`, strictly ascending.
    pub(super) fn new(bounds: Vec<u32>) -> Self {
        let (Some(&first), Some(&last)) = (bounds.first(), bounds.last()) else {
            return Self { bounds, shift: 0, before: vec![0, 0] };
        };
        let buckets = (4 * bounds.len()).next_power_of_two().max(MIN_BUCKETS);
        let shift = (0..32).find(|&s| ((last - first) >> s) < buckets as u32).unwrap_or(31);
        let used = ((last - first) >> shift) as usize + 1;
        let mut before = vec![0u32; used + 1];
        bounds.iter().for_each(|&bound| before[((bound - first) >> shift) as usize + 1] += 1);
        for bucket in 1..before.len() {
            before[bucket] += before[bucket - 1];
        }
        Self { bounds, shift, before }
    }

    /// The interval of `key`: the number of bounds at or below it.
    #[inline]
    pub(super) fn find(&self, key: u32) -> usize {
        let Some(&first) = self.bounds.first() else { return 0 };
        if key < first {
            return 0;
        }
        let bucket = (((key - first) >> self.shift) as usize).min(self.before.len() - 2);
        let (start, end) = (self.before[bucket] as usize, self.before[bucket + 1] as usize);
        start + self.bounds[start..end].partition_point(|&bound| bound <= key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_order_as_values_do() {
        let ascending =
            [f32::MIN, -1.0, -f32::MIN_POSITIVE, -1e-45, -0.0, 0.0, 1e-45, f32::MIN_POSITIVE, 0.5, 1.0, f32::MAX];
        assert!(ascending.windows(2).all(|w| key_of(w[0]) < key_of(w[1])));
        assert!(ascending.iter().all(|&v| value_of(key_of(v)).to_bits() == v.to_bits()));
        assert!(ascending.windows(2).all(|w| key_of_f64(w[0].into()) < key_of_f64(w[1].into())));
        assert!(ascending.iter().all(|&v| value_of_f64(key_of_f64(v.into())).to_bits() == f64::from(v).to_bits()));
    }

    #[test]
    fn bounds_between_two_floats_round_up() {
        let between = 0.1f32;
        assert_eq!(ceil_f32(f64::from(between)), between);
        assert_eq!(ceil_f32(f64::from(between) + 1e-12), between.next_up());
        assert_eq!(ceil_f32(f64::from(between) - 1e-12), between);
    }

    proptest! {
        #[test]
        fn intervals_count_the_bounds_at_or_below_a_key(
            mut bounds in proptest::collection::vec(any::<u32>(), 0..200),
            near in proptest::collection::vec(any::<u32>(), 1..50),
            narrow in any::<bool>(),
        ) {
            if narrow {
                bounds.iter_mut().for_each(|b| *b = 1_000_000 + *b % 500);
            }
            bounds.sort_unstable();
            bounds.dedup();
            let intervals = Intervals::new(bounds.clone());
            let keys = near.into_iter().chain(bounds.iter().flat_map(|&b| [b.wrapping_sub(1), b, b.wrapping_add(1)]));
            for key in keys.chain([0, u32::MAX]) {
                prop_assert_eq!(intervals.find(key), bounds.iter().filter(|&&b| b <= key).count());
            }
        }
    }
}
