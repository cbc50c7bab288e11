//! The inner loops of training, generic over the element type, each on one thread: batches are what runs side by side.

pub(super) mod convolution;
pub(super) mod matrix;
pub(super) mod pool;
pub(super) mod slide;
