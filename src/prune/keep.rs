//! How many weights survive, and among which neighbours: the exact selection of the largest.

use rayon::prelude::*;

use super::Pattern;

/// Which of the weights that are ranked together survive: exactly as many as asked for, the earlier ones of equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// This many of a layer.
    Layer(usize),
    /// This many of each row.
    Row(usize),
    /// By a pattern in each row.
    Pattern(Pattern),
}

impl Keep {
    /// Survivors of a layer of `rows x cols` weights.
    pub fn survivors(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Layer(count) => count.min(rows * cols),
            Self::Row(count) => rows * count.min(cols),
            Self::Pattern(pattern) => {
                let (whole, rest) = (cols / pattern.of(), cols % pattern.of());
                rows * (whole * pattern.keep() + rest.min(pattern.keep()))
            }
        }
    }

    /// Marks the cells of a layer that survive; `scores` are its saliencies, finite and of any sign, of which the absolute
    /// value counts; `cols` a row.
    pub(crate) fn select(self, scores: &[f32], cols: usize) -> Vec<bool> {
        let mut kept = vec![false; scores.len()];
        let (scores, cols) = (scores, cols.max(1));
        match self {
            Self::Layer(count) => mark_largest(scores, count, &mut kept),
            Self::Row(count) => {
                let rows = kept.par_chunks_mut(cols).zip(scores.par_chunks(cols));
                rows.for_each(|(kept, scores)| mark_largest(scores, count, kept));
            }
            Self::Pattern(pattern) => {
                let rows = kept.par_chunks_mut(cols).zip(scores.par_chunks(cols));
                rows.for_each(|(kept, scores)| {
                    for (kept, scores) in kept.chunks_mut(pattern.of()).zip(scores.chunks(pattern.of())) {
                        mark_largest(scores, pattern.keep(), kept);
                    }
                });
            }
        }
        kept
    }
}

/// Weights that survive `sparsity` of `count`.
pub(crate) fn survivors(count: usize, sparsity: f64) -> usize {
    count - ((sparsity * count as f64).round() as usize).min(count)
}

/// Marks the `count` largest absolute values.
fn mark_largest(scores: &[f32], count: usize, kept: &mut [bool]) {
    if count == 0 {
        return;
    }
    if count >= scores.len() {
        kept.fill(true);
        return;
    }
    // The bits of floats that are not negative are ordered as they are.
    let mut bits: Vec<u32> = scores.iter().map(|score| score.abs().to_bits()).collect();
    let place = bits.len() - count;
    let (_, &mut threshold, above) = bits.select_nth_unstable(place);
    let mut equals = count - above.iter().filter(|&&bits| bits > threshold).count();
    for (kept, score) in kept.iter_mut().zip(scores) {
        let bits = score.abs().to_bits();
        *kept = bits > threshold || (bits == threshold && equals > 0);
        equals -= usize::from(bits == threshold && equals > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_as_many_survive_as_asked_for_and_the_earlier_of_equals() {
        let scores = [1.0, -3.0, 3.0, 3.0, 0.0, 2.0];
        let of = |keep: Keep| keep.select(&scores, 3).iter().map(|&kept| u8::from(kept)).collect::<Vec<_>>();
        assert_eq!(of(Keep::Layer(2)), [0, 1, 1, 0, 0, 0]);
        assert_eq!(of(Keep::Layer(9)), [1; 6]);
        assert_eq!(of(Keep::Layer(0)), [0; 6]);
        assert_eq!(of(Keep::Row(1)), [0, 1, 0, 1, 0, 0]);
        let pattern = Pattern::new(1, 2).unwrap();
        assert_eq!(of(Keep::Pattern(pattern)), [0, 1, 1, 1, 0, 1]);
        assert_eq!(Keep::Pattern(pattern).survivors(2, 3), 4);
    }
}
