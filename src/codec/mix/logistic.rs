//! Probabilities, their log odds, and logarithms of counts, in integers.
//!
//! A *probability* is a fraction of 2^16, in 1..2^16. *Log odds*, ln(p / (1 - p)), are in units of 1/256, from -[`LIMIT`] to
//! [`LIMIT`].

use std::sync::LazyLock;

/// The largest log odds, just below 12.
pub(super) const LIMIT: i32 = 3071;

/// The probabilities of log odds 0, 1/4, 2/4, ... 12.
const KNOTS: [i32; 49] = [
    32768, 36843, 40793, 44511, 47911, 50941, 53581, 55834, 57724, 59287, 60565, 61598, 62428, 63090, 63615, 64030,
    64357, 64614, 64816, 64974, 65097, 65194, 65269, 65328, 65374, 65410, 65438, 65459, 65476, 65489, 65500, 65508,
    65514, 65519, 65523, 65526, 65528, 65530, 65531, 65532, 65533, 65534, 65534, 65535, 65535, 65535, 65535, 65535,
    65536,
];

/// Steps of 1/256 between two knots.
const STEP: i32 = 64;

/// The two functions, from tables.
pub(super) struct Logistic {
    squash: Vec<u16>,
    stretch: Vec<i16>,
}

/// The one pair of tables.
pub(super) static LOGISTIC: LazyLock<Logistic> = LazyLock::new(Logistic::new);

impl Logistic {
    fn new() -> Self {
        let squash: Vec<u16> = (-LIMIT..=LIMIT).map(|x| interpolate(x) as u16).collect();
        let mut x = 0;
        let stretch = (0..=u16::MAX).map(|p| {
            while x + 1 < squash.len() && squash[x] < p {
                x += 1;
            }
            x as i16 - LIMIT as i16
        });
        let stretch = stretch.collect();
        Self { squash, stretch }
    }

    /// The probability of log odds `x`, which are cut off at [`LIMIT`].
    #[inline]
    pub(super) fn squash(&self, x: i32) -> i32 {
        i32::from(self.squash[(x.clamp(-LIMIT, LIMIT) + LIMIT) as usize])
    }

    /// The smallest log odds of a probability of at least `p`.
    #[inline]
    pub(super) fn stretch(&self, p: u16) -> i32 {
        i32::from(self.stretch[usize::from(p)])
    }
}

/// The probability of log odds `x`: on a line between two knots; of negative log odds, what is left.
fn interpolate(x: i32) -> i32 {
    let (knot, part) = ((x.abs() / STEP) as usize, x.abs() % STEP);
    let p = (KNOTS[knot] * (STEP - part) + KNOTS[knot + 1] * part) / STEP;
    if x < 0 { (1 << 16) - p } else { p }
}

/// The logarithm of `n` to base 2, in units of 1/256, on a line between two powers of two; 0 for 0.
#[inline]
pub(super) fn log2(n: u32) -> i32 {
    let whole = n.max(1).ilog2();
    (whole << 8) as i32 + ((u64::from(n.max(1)) << 8 >> whole) & 255) as i32
}

/// Log odds of an event that was seen `yes` times and missed `no` times, when before that it had been seen and missed
/// `prior` times, in units of 1/256, each at least 1.
#[inline]
pub(super) fn log_odds(yes: u32, no: u32, prior: (u32, u32)) -> i32 {
    let weigh = |count: u32, prior: u32| log2((count.min(1 << 22) << 8) + prior);
    // ln 2 = 177 / 256.
    (((weigh(yes, prior.0) - weigh(no, prior.1)) * 177) >> 8).clamp(-LIMIT, LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretch_is_the_inverse_of_squash() {
        assert_eq!(LOGISTIC.squash(0), 1 << 15);
        for x in -LIMIT..=LIMIT {
            let p = LOGISTIC.squash(x);
            assert!((1..1 << 16).contains(&p), "{x}");
            assert_eq!(p + LOGISTIC.squash(-x), 1 << 16, "{x}");
            let back = LOGISTIC.stretch(p as u16);
            assert!(back <= x && LOGISTIC.squash(back) == p, "{x} {back}");
        }
    }

    #[test]
    fn both_are_close_to_what_they_stand_for() {
        for x in -LIMIT..=LIMIT {
            let exact = 65536.0 / (1.0 + (-f64::from(x) / 256.0).exp());
            let least = exact.min(65536.0 - exact);
            assert!((f64::from(LOGISTIC.squash(x)) - exact).abs() <= 2.0 + 0.02 * least, "{x}");
        }
        for n in 1..5000 {
            assert!((f64::from(log2(n)) / 256.0 - f64::from(n).log2()).abs() < 0.09, "{n}");
        }
        assert_eq!((log2(0), log2(1), log2(3), log2(1 << 31)), (0, 0, 384, 31 << 8));
        assert_eq!(log_odds(9, 9, (1, 1)), 0);
        assert_eq!(log_odds(u32::MAX, 0, (1, 1)), LIMIT);
    }
}
