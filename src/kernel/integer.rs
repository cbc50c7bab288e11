//! Inner loops of whole numbers: the same on every processor, and quicker where it has wide registers.
//!
//! Each is written once, in plain code, and compiled a second time for AVX2.

/// Numbers that one step takes: slices as long as a multiple of it are quickest.
pub(crate) const WIDTH: usize = 8;

/// Compiles `$portable` for AVX2 too, and calls that where the processor has it.
macro_rules! for_avx2 {
    ($(#[$doc:meta])* $name:ident, $portable:ident, ($($argument:ident: $type:ty),*) -> $result:ty) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name($($argument: $type),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,popcnt")]
                fn wide($($argument: $type),*) -> $result {
                    $portable($($argument),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
                    // SAFETY: the processor has what `wide` is compiled for; it is safe code otherwise.
                    return unsafe { wide($($argument),*) };
                }
            }
            $portable($($argument),*)
        }
    };
}

for_avx2! {
    /// The sum of `a[i] b[i] >> 8` over all i, which overflows nowhere in between.
    scaled_product, scaled_product_portable, (a: &[i32], b: &[i32]) -> i32
}

for_avx2! {
    /// Moves each weight by `(error inputs[i] + 2^12) >> 13`, no farther than `limit` from zero.
    nudge, nudge_portable, (weights: &mut [i32], inputs: &[i32], error: i32, limit: i32) -> ()
}

for_avx2! {
    /// Bits in which two bit strings differ.
    differing_bits, differing_bits_portable, (a: &[u64], b: &[u64]) -> u32
}

for_avx2! {
    /// The sum of products of up to 2^16 numbers.
    product, product_portable, (a: &[i8], b: &[i8]) -> i32
}

#[inline(always)]
fn scaled_product_portable(a: &[i32], b: &[i32]) -> i32 {
    a.iter().zip(b).map(|(a, b)| (a * b) >> 8).sum()
}

#[inline(always)]
fn nudge_portable(weights: &mut [i32], inputs: &[i32], error: i32, limit: i32) {
    for (weight, input) in weights.iter_mut().zip(inputs) {
        *weight = (*weight + ((error * input + (1 << 12)) >> 13)).clamp(-limit, limit);
    }
}

#[inline(always)]
fn differing_bits_portable(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[inline(always)]
fn product_portable(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_paths_are_equal() {
        let numbers = |len: usize, seed: i32| (0..len as i32).map(move |i| (i * i * 37 + seed * i) % 4001 - 2000);
        for len in [0, 1, 7, 8, 30, 57, 64, 1000] {
            let (a, b): (Vec<i32>, Vec<i32>) = (numbers(len, 3).collect(), numbers(len, 11).collect());
            assert_eq!(scaled_product(&a, &b), scaled_product_portable(&a, &b));
            for error in [-90_000, 0, 77_777] {
                let (mut found, mut expected) = (a.clone(), a.clone());
                nudge(&mut found, &b, error, 1500);
                nudge_portable(&mut expected, &b, error, 1500);
                assert_eq!(found, expected);
            }
            let words =
                |numbers: &[i32]| numbers.iter().map(|&n| (n as u64).wrapping_mul(0x9e37_79b9)).collect::<Vec<_>>();
            assert_eq!(differing_bits(&words(&a), &words(&b)), differing_bits_portable(&words(&a), &words(&b)));
            let bytes = |numbers: &[i32]| numbers.iter().map(|&n| n as i8).collect::<Vec<_>>();
            assert_eq!(product(&bytes(&a), &bytes(&b)), product_portable(&bytes(&a), &bytes(&b)));
        }
    }
}
