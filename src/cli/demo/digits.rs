//! Handwritten digits on a terminal, in braille: 2 x 4 pixels a character.

use std::fmt::Write;
use std::io;

/// Width and height of an image.
pub const SIDE: usize = 28;

/// Pixels of an image.
const PIXELS: usize = SIDE * SIDE;

/// A pixel at least this dark is drawn.
const INK: u8 = 100;

/// The number of the test split in a dataset.
const TEST_SPLIT: u8 = 2;

/// Space between two digits.
const GAP: usize = 3;

/// One labelled image.
pub struct Digit {
    /// Row-major, 0 (paper) to 255 (ink).
    pub pixels: Vec<u8>,
    /// The true digit.
    pub label: u8,
}

/// The first `count` images of the test split of a dataset in `npz` with arrays `x`, `y` and `split`.
///
/// # Errors
/// Any fault of the archive, which is bundled: none is expected.
pub fn first_of_test(npz: &[u8], count: usize) -> io::Result<Vec<Digit>> {
    let (pixels, labels, split) = (read(npz, "x")?, read(npz, "y")?, read(npz, "split")?);
    let images = pixels.chunks_exact(PIXELS).zip(labels).zip(split);
    let test = images.filter(|(_, split)| *split == TEST_SPLIT);
    Ok(test.take(count).map(|((pixels, label), _)| Digit { pixels: pixels.to_vec(), label }).collect())
}

/// An array of bytes from an archive.
fn read(npz: &[u8], name: &str) -> io::Result<Vec<u8>> {
    let mut archive = zip::ZipArchive::new(io::Cursor::new(npz))?;
    npyz::NpyFile::new(archive.by_name(&format!("{name}.npy"))?)?.into_vec()
}

/// The digits side by side, each with its label and prediction below.
pub fn draw(digits: &[Digit], predicted: &[usize]) -> String {
    const WIDTH: usize = SIDE / 2 + GAP;
    let mut out = String::new();
    for line in 0..SIDE / 4 {
        out.push_str("  ");
        for digit in digits {
            out.extend((0..SIDE / 2).map(|column| cell(&digit.pixels, line, column)));
            out.push_str(&" ".repeat(GAP));
        }
        out.push('\n');
    }
    out.push_str("  ");
    for (digit, &prediction) in digits.iter().zip(predicted) {
        let verdict = if usize::from(digit.label) == prediction { "✓" } else { "✗" };
        let caption = format!("is {}, said {prediction} {verdict}", digit.label);
        let _ = write!(out, "{caption:<WIDTH$}");
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

/// The character of a 2 x 4 cell. Unicode numbers the dots down the left column, then the right, the bottom row last.
fn cell(pixels: &[u8], line: usize, column: usize) -> char {
    const DOTS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let mut code = 0x2800;
    for (y, dots) in DOTS.iter().enumerate() {
        for (x, dot) in dots.iter().enumerate() {
            if pixels[(line * 4 + y) * SIDE + column * 2 + x] >= INK {
                code |= dot;
            }
        }
    }
    char::from_u32(code).unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digit_is_drawn_with_its_verdict() {
        let mut pixels = vec![0; PIXELS];
        pixels[0] = 255;
        pixels[3 * SIDE + 1] = 255;
        let drawing = draw(&[Digit { pixels, label: 7 }], &[7]);
        let mut lines = drawing.lines();
        assert!(lines.next().unwrap().starts_with("  \u{2881}\u{2800}"));
        assert_eq!(lines.last().unwrap(), "  is 7, said 7 ✓");
    }
}
