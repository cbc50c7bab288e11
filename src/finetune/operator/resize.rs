//! Resize and Upsample to the nearest element.

use super::take::take;
use super::{Inputs, Operator, OperatorError};
use crate::finetune::error::TuneError;
use crate::finetune::node::Node;
use crate::finetune::value::{Value, count, to_f64};

#[derive(Debug)]
struct Resize {
    /// Of Upsample before version 9.
    scales: Option<Vec<f64>>,
    /// Where Resize has its scales; sizes come behind.
    scales_at: usize,
    transform: Transform,
    rounding: Rounding,
}

/// How a coordinate of the output becomes one of the input.
#[derive(Debug, Clone, Copy)]
enum Transform {
    HalfPixel,
    Asymmetric,
    AlignCorners,
}

#[derive(Debug, Clone, Copy)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// Reads a Resize or an Upsample.
pub(super) fn parse(node: &Node<'_>) -> Result<Box<dyn Operator>, TuneError> {
    let is_upsample = node.operator() == "Upsample" || node.opset < 11;
    match node.word("mode").as_deref() {
        None | Some("nearest") => {}
        Some(other) => return Err(node.unsupported("mode", other)),
    }
    if node.has("axes") {
        return Err(node.unsupported("axes", format!("{:?}", node.ints("axes").unwrap_or_default())));
    }
    let transform = match node.word("coordinate_transformation_mode").as_deref() {
        _ if is_upsample => Transform::Asymmetric,
        // Of pixels, the two differ in an output of one element only.
        None | Some("half_pixel") => Transform::HalfPixel,
        Some("asymmetric") => Transform::Asymmetric,
        Some("align_corners") => Transform::AlignCorners,
        Some(other) => return Err(node.unsupported("coordinate_transformation_mode", other)),
    };
    let rounding = match node.word("nearest_mode").as_deref() {
        _ if is_upsample => Rounding::Floor,
        None | Some("round_prefer_floor") => Rounding::PreferFloor,
        Some("round_prefer_ceil") => Rounding::PreferCeil,
        Some("floor") => Rounding::Floor,
        Some("ceil") => Rounding::Ceil,
        Some(other) => return Err(node.unsupported("nearest_mode", other)),
    };
    let scales = node.floats("scales").map(|list| list.iter().map(|&scale| f64::from(scale)).collect());
    Ok(Box::new(Resize { scales, scales_at: if is_upsample { 1 } else { 2 }, transform, rounding }))
}

impl Operator for Resize {
    fn run(&self, inputs: &Inputs<'_>) -> Result<Vec<Value>, OperatorError> {
        let mut result = inputs.value(0)?.clone();
        let dims = result.dims();
        let listed = match inputs.optional(self.scales_at) {
            Some(value) => Some(to_f64(value.float()?.inner())),
            None => self.scales.clone(),
        };
        let sizes = inputs.ints(self.scales_at + 1)?;
        let scales = match (listed.filter(|list| !list.is_empty()), sizes) {
            (Some(scales), _) => scales,
            (None, Some(sizes)) if sizes.len() == dims.len() => {
                sizes.iter().zip(&dims).map(|(&size, &dim)| size as f64 / dim.max(1) as f64).collect()
            }
            (None, sizes) => {
                return Err(OperatorError::WrongLength { expected: dims.len(), found: sizes.map_or(0, |s| s.len()) });
            }
        };
        if scales.len() != dims.len() {
            return Err(OperatorError::WrongLength { expected: dims.len(), found: scales.len() });
        }
        for (axis, (&scale, &extent)) in scales.iter().zip(&dims).enumerate() {
            if !(scale > 0.0 && scale.is_finite()) {
                return Err(OperatorError::Range { what: "a scale", found: scale as i64 });
            }
            // A scale that stands for sizes may fall short of a whole number by rounding.
            let target = (extent as f64 * scale + 1e-6).floor() as usize;
            let mut resized = result.dims();
            resized[axis] = target;
            count(&resized)?;
            let entries = (0..target).map(|place| self.nearest(place, scale, extent, target)).collect();
            result = take(&result, axis, entries, 0.0)?;
        }
        Ok(vec![result])
    }

    fn differentiable(&self) -> usize {
        1
    }
}

impl Resize {
    /// Computed in f32, as other programs do: in f64 a scale such as 0.6, which f32 rounds up, falls short of whole numbers.
    fn nearest(&self, place: usize, scale: f64, extent: usize, target: usize) -> usize {
        let (place, scale) = (place as f32, scale as f32);
        let x = match self.transform {
            Transform::HalfPixel => (place + 0.5) / scale - 0.5,
            Transform::Asymmetric => place / scale,
            Transform::AlignCorners if target <= 1 => 0.0,
            Transform::AlignCorners => place * (extent as f32 - 1.0) / (target as f32 - 1.0),
        };
        let rounded = match self.rounding {
            Rounding::PreferFloor => (x - 0.5).ceil(),
            Rounding::PreferCeil => (x + 0.5).floor(),
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
        };
        rounded.clamp(0.0, extent as f32 - 1.0) as usize
    }
}
