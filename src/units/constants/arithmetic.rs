//! Operators that work position by position, and batch normalisation. Only functions that the runtime computes to within rounding
//! of the definition, and whose steps, if any, do not jump: a rounded argument must not change the result by more than rounding.

use super::{Known, Walk, each};
use crate::units::value::{Node, Number};

/// The function of one number that a node applies; `None` where it is none that is known.
pub(super) fn unary(node: Node) -> Option<Box<dyn Fn(f64) -> f64>> {
    let float = |name: &str, default: f32| node.float(name, default);
    Some(match node.0.op_type.as_str() {
        "Identity" => Box::new(|x| x),
        // Without a third input it is not in training.
        "Dropout" if node.0.input.len() < 3 => Box::new(|x| x),
        // To float32 or float64.
        "Cast" if matches!(node.int("to", 0), 1 | 11) => Box::new(|x| x),
        "Relu" => Box::new(|x| x.max(0.0)),
        "LeakyRelu" => {
            let alpha = float("alpha", 0.01);
            Box::new(move |x| if x < 0.0 { alpha * x } else { x })
        }
        "Elu" => {
            let alpha = float("alpha", 1.0);
            Box::new(move |x| if x < 0.0 { alpha * libm::expm1(x) } else { x })
        }
        "HardSigmoid" => {
            let (alpha, beta) = (float("alpha", 0.2), float("beta", 0.5));
            Box::new(move |x| (alpha * x + beta).clamp(0.0, 1.0))
        }
        "HardSwish" => Box::new(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Sigmoid" => Box::new(sigmoid),
        "Tanh" => Box::new(libm::tanh),
        "Erf" => Box::new(libm::erf),
        "Exp" => Box::new(libm::exp),
        "Neg" => Box::new(|x| -x),
        "Abs" => Box::new(f64::abs),
        _ => return None,
    })
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

fn binary(op: &str) -> fn(f64, f64) -> f64 {
    match op {
        "Add" => |x, y| x + y,
        "Sub" => |x, y| x - y,
        "Mul" => |x, y| x * y,
        "Div" => |x, y| x / y,
        // PRelu.
        _ => |x, slope| if x < 0.0 { slope * x } else { x },
    }
}

impl<'a, E> Walk<'_, 'a, E> {
    /// Bounds are attributes, or inputs of one number each.
    pub(super) fn clip(&mut self, node: Node<'a>) -> Result<Option<Known>, E> {
        let Some(x) = self.input(node, 0).cloned() else { return Ok(None) };
        let mut bounds = [node.float("min", f32::MIN), node.float("max", f32::MAX)];
        for (slot, bound) in (1..).zip(&mut bounds) {
            if let Some(name) = node.0.input.get(slot).filter(|name| !name.is_empty()) {
                let Some(value) = self.vector(name, (0, 1), 1)? else { return Ok(None) };
                *bound = value[0];
            }
        }
        let [low, high] = bounds;
        let affords = self.afford(x.values.len());
        Ok((affords && low <= high).then(|| each(&x, |x| x.clamp(low, high))))
    }

    /// One output position from one of each of two inputs, with NumPy's broadcasting. What is multiplied by zero is zero.
    pub(super) fn broadcast(&mut self, node: Node<'a>) -> Result<Option<Known>, E> {
        let [a, b] = &node.0.input[..] else { return Ok(None) };
        let Some(extents) = self.facts.extents.get(node.0.output[0].as_str()) else { return Ok(None) };
        let rank = extents.len();
        let axis = |slot: usize| {
            let known = self.input(node, slot)?;
            (known.axis + rank).checked_sub(self.extents(node, slot)?.len())
        };
        let axis = match (axis(0), axis(1)) {
            (Some(a), Some(b)) if a != b => return Ok(None),
            (Some(axis), _) | (None, Some(axis)) => axis,
            (None, None) => return Ok(None),
        };
        let Some(Number::Known(len)) = extents.get(axis) else { return Ok(None) };
        let Some(len) = usize::try_from(*len).ok().filter(|&len| self.afford(len)) else { return Ok(None) };
        let (a, b) = (self.side(a, (axis, rank), len)?, self.side(b, (axis, rank), len)?);
        let op = node.0.op_type.as_str();
        let function = binary(op);
        let value = |(a, b): (Option<f64>, Option<f64>)| match (a, b) {
            (Some(a), Some(b)) => Some(function(a, b)),
            (Some(0.0), None) | (None, Some(0.0)) if op == "Mul" => Some(0.0),
            (Some(0.0), None) if op == "PRelu" => Some(0.0),
            _ => None,
        };
        Ok(Some(Known::new(axis, a.into_iter().zip(b).map(value).collect())))
    }

    /// An operand, position by position.
    fn side(&mut self, name: &str, place: (usize, usize), len: usize) -> Result<Vec<Option<f64>>, E> {
        if let Some(known) = self.known.get(name).filter(|known| known.values.len() == len) {
            return Ok(known.values.to_vec());
        }
        Ok(match self.vector(name, place, len)? {
            Some(values) => values.into_iter().map(Some).collect(),
            None => vec![None; len],
        })
    }

    /// Where the scale is zero, the channel is its shift, whatever is normalised.
    pub(super) fn batch_normalization(&mut self, node: Node<'a>) -> Result<Option<Known>, E> {
        let is_inference = node.int("training_mode", 0) == 0 && node.int("spatial", 1) == 1;
        let scale = node.0.input.get(1).and_then(|name| self.facts.float_dims(name));
        let ([_, _, _, _, _], Some(&[channels]), true) = (&node.0.input[..], scale.as_deref(), is_inference) else {
            return Ok(None);
        };
        let mut parameters = Vec::with_capacity(4);
        for name in &node.0.input[1..] {
            let Some(values) = self.vector(name, (0, 1), channels)? else { return Ok(None) };
            parameters.push(values);
        }
        let x = self.input(node, 0).filter(|x| x.axis == 1 && x.values.len() == channels);
        let epsilon = node.float("epsilon", 1e-5);
        let value = |channel: usize| {
            let [scale, shift, mean, variance] = [0, 1, 2, 3].map(|i| parameters[i][channel]);
            match x.and_then(|x| x.values[channel]) {
                Some(x) => Some(scale * (x - mean) / (variance + epsilon).sqrt() + shift),
                None => (scale == 0.0 && variance + epsilon > 0.0).then_some(shift),
            }
        };
        Ok(Some(Known::new(1, (0..channels).map(value).collect())))
    }
}
