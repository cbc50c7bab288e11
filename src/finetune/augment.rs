//! Images moved and mirrored by chance: samples that a data set does not hold, with the targets of those that it does.
//!
//! # Source
//! Simard, Steinkraus, Platt, "Best practices for convolutional neural networks applied to visual document analysis", ICDAR
//! 2003, section 2; what is moved in from outside repeats the border.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::samples::{Batch, Image};
use crate::infer::ArrayData;

/// Tells these draws from others of the same seed.
const DRAWS: u64 = 0x696d_6167_6573;

/// Changes of images by chance, each time that they are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augment {
    /// By how many pixels at most, up or down and left or right.
    pub shift: u32,
    /// Whether left and right are exchanged, half of the time.
    pub flip: bool,
}

impl Augment {
    /// Changes each of `samples` samples, in all inputs that are images alike, as `seed` and `number` draw.
    pub(super) fn apply(
        self,
        batch: &mut Batch,
        samples: usize,
        image: impl Fn(&str) -> Option<Image>,
        (seed, number): (u64, u64),
    ) {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ DRAWS);
        random.set_stream(number);
        let span = u64::from(self.shift) * 2 + 1;
        let mut shift = || ((u64::from(random.next_u32()) * span) >> 32) as isize - self.shift as isize;
        let moves: Vec<(isize, isize)> = (0..samples).map(|_| (shift(), shift())).collect();
        let flips: Vec<bool> = (0..samples).map(|_| self.flip && random.next_u32() & 1 == 1).collect();
        for (name, array) in &mut batch.inputs {
            let (Some(image), ArrayData::F32(values)) = (image(name), &mut array.data) else { continue };
            if values.len() != samples * image.elements() {
                continue;
            }
            for (sample, (moved, flip)) in values.chunks_mut(image.elements()).zip(moves.iter().zip(&flips)) {
                change(sample, image, *moved, *flip);
            }
        }
    }
}

/// Moves an image by `down` and `right` pixels, after it was mirrored if `flip` says so.
fn change(values: &mut [f32], image: Image, (down, right): (isize, isize), flip: bool) {
    let Image { planes, height, width, channels } = image;
    let plain = values.to_vec();
    let source = |at: usize, by: isize, len: usize| (at as isize - by).clamp(0, len as isize - 1) as usize;
    for plane in 0..planes {
        for row in 0..height {
            let from = (plane * height + source(row, down, height)) * width;
            let to = (plane * height + row) * width;
            for col in 0..width {
                let other = source(col, right, width);
                let other = if flip { width - 1 - other } else { other };
                let (to, from) = ((to + col) * channels, (from + other) * channels);
                values[to..to + channels].copy_from_slice(&plain[from..from + channels]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::Array;

    #[test]
    fn images_are_moved_and_mirrored_and_borders_repeat() {
        let image = Image::of(&[2, 3]).unwrap();
        let changed = |moved, flip| {
            let mut values = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            change(&mut values, image, moved, flip);
            values
        };
        assert_eq!(changed((0, 1), false), [1.0, 1.0, 2.0, 4.0, 4.0, 5.0]);
        assert_eq!(changed((1, 0), false), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        assert_eq!(changed((-1, -5), false), [6.0; 6]);
        assert_eq!(changed((0, 0), true), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        assert_eq!(changed((0, 1), true), [3.0, 3.0, 2.0, 6.0, 6.0, 5.0]);
    }

    #[test]
    fn colours_that_come_last_move_with_their_pixels() {
        let image = Image::of(&[8, 8, 3]).unwrap();
        let plain: Vec<f32> = (0..8 * 8 * 3).map(|i| i as f32).collect();
        let mut values = plain.clone();
        change(&mut values, image, (0, 0), true);
        assert_eq!(values[..3], plain[7 * 3..8 * 3]);
    }

    #[test]
    fn the_draw_decides_and_other_inputs_stay() {
        let array = |data| Array { dims: vec![4, 9], data };
        let plain: Vec<f32> = (0..36).map(|i| i as f32).collect();
        let drawn = |number| {
            let inputs = vec![
                ("x".to_owned(), array(ArrayData::F32(plain.clone()))),
                ("features".to_owned(), array(ArrayData::F32(plain.clone()))),
            ];
            let mut batch = Batch { inputs, target: None };
            let image = |name: &str| (name == "x").then(|| Image::of(&[3, 3])).flatten();
            Augment { shift: 1, flip: true }.apply(&mut batch, 4, image, (7, number));
            assert_eq!(batch.inputs[1].1.data, ArrayData::F32(plain.clone()));
            batch.inputs.swap_remove(0).1.data
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_ne!(drawn(1), ArrayData::F32(plain.clone()));
    }
}
