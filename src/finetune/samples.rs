//! Where training samples come from.

use super::error::TuneError;
use crate::infer::Array;

/// Samples that can be read in any order, from several threads at once.
pub trait Samples: Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples of these indices, each below [`Samples::len`].
    ///
    /// # Errors
    /// [`TuneError::Samples`] where they cannot be read.
    fn read(&self, indices: &[usize]) -> Result<Batch, TuneError>;
}

/// Samples as the graph takes them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// An array for each input of the graph, in its element type, samples along the first axis.
    pub inputs: Vec<(String, Array)>,
    /// What the output is to be: a class a sample, or values in the shape of the output; samples along the first axis.
    pub target: Option<Array>,
}
