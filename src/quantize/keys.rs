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

/// Buckets of a search table: 16 KiB at first, more until no bucket holds many bounds.
const MIN_BUCKETS: usize = 1 << 12;
const MAX_BUCKETS: usize = 1 << 18;

/// Bounds that are compared with a key at once.
const WIDTH: usize = 4;

/// The line of keys cut into intervals at ascending bounds, with a table that finds a key's interval.
///
/// Keys that share `(key - first) >> shift` share a bucket, and the table tells how many bounds lie before it. Most
/// buckets hold few bounds, so comparing the next [`WIDTH`] bounds, wherever they lie, settles the rest without a branch.
#[derive(Debug, Clone)]
pub(super) struct Intervals {
    /// Interval `i` ends before `bounds[i]`, and interval `i + 1` starts there; then [`WIDTH`] times the largest key.
    bounds: Vec<u32>,
    shift: u32,
    /// Number of bounds before each bucket, and their total at the end.
    before: Vec<u32>,
    /// Most bounds in a bucket.
    widest: usize,
}

impl Intervals {
    /// Cuts at `bounds`, strictly ascending and below the largest key (which is that of a NaN).
    pub(super) fn new(mut bounds: Vec<u32>) -> Self {
        let span = bounds.last().map_or(0, |last| last - bounds[0]);
        let mut buckets = MIN_BUCKETS;
        loop {
            let shift = (0..32).find(|&s| ((span >> s) as usize) < buckets).unwrap_or(31);
            let mut before = vec![0u32; (span >> shift) as usize + 2];
            bounds.iter().for_each(|&bound| before[((bound - bounds[0]) >> shift) as usize + 1] += 1);
            let widest = before.iter().copied().max().unwrap_or(0) as usize;
            if widest <= WIDTH || buckets == MAX_BUCKETS || shift == 0 {
                (1..before.len()).for_each(|bucket| before[bucket] += before[bucket - 1]);
                bounds.extend([u32::MAX; WIDTH]);
                return Self { bounds, shift, before, widest };
            }
            buckets *= 4;
        }
    }

    /// The interval of `key`, which is below the largest: the number of bounds at or below it.
    #[inline]
    pub(super) fn find(&self, key: u32) -> usize {
        let bucket = (key.saturating_sub(self.bounds[0]) >> self.shift) as usize;
        let bucket = bucket.min(self.before.len() - 2);
        let start = self.before[bucket] as usize;
        if self.widest <= WIDTH {
            let next = &self.bounds[start..start + WIDTH];
            start + next.iter().map(|&bound| usize::from(bound <= key)).sum::<usize>()
        } else {
            let end = self.before[bucket + 1] as usize;
            start + self.bounds[start..end].partition_point(|&bound| bound <= key)
        }
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
            mut bounds in proptest::collection::vec(0..u32::MAX, 0..200),
            near in proptest::collection::vec(0..u32::MAX, 1..50),
            narrow in any::<bool>(),
            crowded in any::<bool>(),
        ) {
            if narrow {
                bounds.iter_mut().for_each(|b| *b = 1_000_000 + *b % 500);
            }
            if crowded {
                bounds.extend(5_000..5_100);
            }
            bounds.sort_unstable();
            bounds.dedup();
            let intervals = Intervals::new(bounds.clone());
            let keys = near.into_iter().chain(bounds.iter().flat_map(|&b| [b.saturating_sub(1), b, (b + 1).min(u32::MAX - 1)]));
            for key in keys.chain([0, u32::MAX - 1]) {
                prop_assert_eq!(intervals.find(key), bounds.iter().filter(|&&b| b <= key).count());
            }
        }
    }
}
