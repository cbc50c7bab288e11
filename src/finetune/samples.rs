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

    /// How the samples of `input` are images; `None` where they are not.
    fn image(&self, _input: &str) -> Option<Image> {
        None
    }
}

/// A sample as rows of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Colours, where each has a plane of its own.
    pub planes: usize,
    /// Rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Colours, where they are side by side in a pixel.
    pub channels: usize,
}

/// Most colours that a last axis is taken for.
const MAX_CHANNELS: usize = 4;

impl Image {
    /// What a sample of these extents is as an image: height and width, behind planes or in front of colours.
    pub fn of(dims: &[usize]) -> Option<Self> {
        let (planes, height, width, channels) = match *dims {
            [height, width] => (1, height, width, 1),
            [height, width, channels] if channels <= MAX_CHANNELS && height > MAX_CHANNELS => {
                (1, height, width, channels)
            }
            [planes, height, width] => (planes, height, width, 1),
            _ => return None,
        };
        (height > 1 && width > 1 && planes > 0 && channels > 0).then_some(Self { planes, height, width, channels })
    }

    /// Numbers of a sample.
    pub fn elements(self) -> usize {
        self.planes * self.height * self.width * self.channels
    }
}

/// Samples as the graph takes them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// An array for each input of the graph, in its element type, samples along the first axis.
    pub inputs: Vec<(String, Array)>,
    /// What the output is to be: a class a sample, or values in the shape of the output; samples along the first axis.
    pub target: Option<Array>,
}
