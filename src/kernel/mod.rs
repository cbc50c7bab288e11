//! The inner loops of products, and of the codec mix: pure functions on slices, below every codec.
//!
//! `unsafe` is here and in the vector decoder of rANS, and nowhere else: intrinsics, and calls of functions compiled for
//! more than the baseline of the target. Each kernel has a portable path, which the fast one equals within a stated
//! rounding. Results depend on the matrix, the batch and the instructions of the processor, never on threads.

pub(crate) mod axpy;
pub(crate) mod integer;
pub(crate) mod levels;
pub(crate) mod sparse;
pub(crate) mod tree;

/// Whether AVX2 and fused multiply-add may be used. The answer is found once and kept by the standard library.
#[inline]
fn has_avx2_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    false
}
