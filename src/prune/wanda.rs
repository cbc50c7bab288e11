//! The Wanda criterion: a weight matters as much as it is large, times the norm of the input that it multiplies.
//!
//! # Source
//! Sun, Liu, Bair, Kolter, "A simple and effective pruning approach for large language models", ICLR 2024,
//! arXiv:2306.11695, which compares the weights of a row with each other ([`Scope::Row`](super::Scope::Row)).

use crate::tensor::LayerContext;

/// Fills `out` with |w| times the norm of the weight's input, of the cells from `start` on; without statistics with |w|.
pub(super) fn saliencies(layer: &LayerContext<'_>, start: usize, out: &mut [f32]) {
    super::magnitude::saliencies(layer, start, out);
    let Some(statistics) = layer.statistics else { return };
    for (i, saliency) in out.iter_mut().enumerate() {
        let (row, col) = ((start + i) / layer.cols, (start + i) % layer.cols);
        *saliency *= statistics.norm(row, layer.rows, col) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::StatisticsBuilder;

    #[test]
    fn a_small_weight_of_a_large_input_may_matter_more() {
        let mut builder = StatisticsBuilder::new(1, 2);
        // Inputs (3, 1) and (4, -1): root mean squares of 12.5 and 1.
        builder.add(&[3.0, 4.0, 1.0, -1.0], 2);
        let statistics = builder.finish();
        let layer = LayerContext::new("w", 1, 2, &[-1.0, 2.0]).with_statistics(Some(&statistics));
        let mut found = [0.0; 2];
        saliencies(&layer, 0, &mut found);
        assert_eq!(found, [12.5f64.sqrt() as f32, 2.0]);
    }
}
