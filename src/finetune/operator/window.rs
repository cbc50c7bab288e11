//! Windows that slide over one or two spatial axes: strides, dilations and padding of convolutions and pools.

use crate::finetune::error::{OperatorError, TuneError};
use crate::finetune::node::Node;

/// How a window slides; lists have one entry a spatial axis, or are empty for the default.
#[derive(Debug, Clone)]
pub(super) struct Window {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    padding: Padding,
    ceil: bool,
}

#[derive(Debug, Clone)]
enum Padding {
    /// Of all axes before them, then behind them.
    Explicit(Vec<usize>),
    SameUpper,
    SameLower,
    Valid,
}

/// A window on an input of known extents; of a single spatial axis, the second entry of each pair is that axis and the
/// first one trivial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placed {
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    pub pads: [usize; 2],
    pub end_pads: [usize; 2],
}

impl Window {
    /// Reads the attributes of a node.
    pub fn parse(node: &Node<'_>) -> Result<Self, TuneError> {
        let list = |name: &'static str, least: i64| -> Result<Vec<usize>, TuneError> {
            let values = node.ints(name).unwrap_or_default();
            match values.iter().all(|&value| (least..1 << 31).contains(&value)) {
                true => Ok(values.iter().map(|&value| value as usize).collect()),
                false => Err(node.unsupported(name, format!("{values:?}"))),
            }
        };
        let padding = match node.word("auto_pad").as_deref() {
            None | Some("NOTSET") => Padding::Explicit(list("pads", 0)?),
            Some("SAME_UPPER") => Padding::SameUpper,
            Some("SAME_LOWER") => Padding::SameLower,
            Some("VALID") => Padding::Valid,
            Some(other) => return Err(node.unsupported("auto_pad", other)),
        };
        Ok(Self {
            kernel: list("kernel_shape", 1)?,
            strides: list("strides", 1)?,
            dilations: list("dilations", 1)?,
            padding,
            ceil: node.int("ceil_mode", 0) != 0,
        })
    }

    /// Places the window on an input of spatial extents `input`. `kernel` is the weights', where there are weights.
    pub fn place(&self, input: &[usize], kernel: Option<&[usize]>) -> Result<Placed, OperatorError> {
        let kernel = kernel.unwrap_or(&self.kernel);
        let lists = self.lists(input.len(), kernel)?;
        let mut placed = lists.placed(input)?;
        for axis in 2 - input.len()..2 {
            let (extent, stride) = (placed.input[axis], placed.strides[axis]);
            let span = placed.span(axis);
            let misfit = || OperatorError::Window { kernel: kernel.to_vec(), input: input.to_vec() };
            if let Padding::SameUpper | Padding::SameLower = self.padding {
                placed.output[axis] = extent.div_ceil(stride);
                let total = (placed.output[axis].saturating_sub(1) * stride + span).saturating_sub(extent);
                placed.split(axis, total, matches!(self.padding, Padding::SameLower));
            } else {
                let padded = extent + placed.pads[axis] + placed.end_pads[axis];
                let room = padded.checked_sub(span).ok_or_else(misfit)?;
                placed.output[axis] = if self.ceil { room.div_ceil(stride) } else { room / stride } + 1;
                // A window must not begin in the padding behind the input.
                if self.ceil && (placed.output[axis] - 1) * stride >= extent + placed.pads[axis] {
                    placed.output[axis] -= 1;
                }
            }
            if placed.output[axis] == 0 || extent == 0 {
                return Err(misfit());
            }
        }
        Ok(placed)
    }

    /// Places the window of a transposed convolution, whose input is `output` of what this returns. `extra` is added
    /// behind, and `wanted` are the extents asked for, where they are.
    pub fn place_transposed(
        &self,
        output: &[usize],
        kernel: &[usize],
        extra: &[usize],
        wanted: Option<&[usize]>,
    ) -> Result<Placed, OperatorError> {
        let rank = output.len();
        let mut placed = self.lists(rank, kernel)?.placed(output)?;
        placed.output = placed.input;
        let extra = if extra.is_empty() { vec![0; rank] } else { extra.to_vec() };
        if extra.len() != rank || wanted.is_some_and(|wanted| wanted.len() != rank) {
            return Err(OperatorError::WrongLength { expected: rank, found: extra.len() });
        }
        for axis in 2 - rank..2 {
            let (place, stride) = (axis + rank - 2, placed.strides[axis]);
            let misfit = || OperatorError::Window { kernel: kernel.to_vec(), input: output.to_vec() };
            let full = (placed.output[axis].checked_sub(1).ok_or_else(misfit)?)
                .checked_mul(stride)
                .and_then(|sum| sum.checked_add(extra[place] + placed.span(axis)))
                .ok_or_else(misfit)?;
            let same = matches!(self.padding, Padding::SameUpper | Padding::SameLower);
            let target = wanted.map(|wanted| wanted[place]).or(same.then(|| placed.output[axis] * stride));
            if let Some(target) = target {
                let total = full.saturating_sub(target);
                placed.split(axis, total, !matches!(self.padding, Padding::SameUpper));
            }
            let pads = placed.pads[axis] + placed.end_pads[axis];
            placed.input[axis] = full.checked_sub(pads).filter(|&extent| extent > 0).ok_or_else(misfit)?;
        }
        Ok(placed)
    }

    fn lists(&self, rank: usize, kernel: &[usize]) -> Result<Lists, OperatorError> {
        let fill = |list: &[usize]| if list.is_empty() { vec![1; rank] } else { list.to_vec() };
        let pads = match &self.padding {
            Padding::Explicit(pads) if !pads.is_empty() => pads.clone(),
            _ => vec![0; 2 * rank],
        };
        let lists =
            Lists { kernel: kernel.to_vec(), strides: fill(&self.strides), dilations: fill(&self.dilations), pads };
        let wrong = [&lists.kernel, &lists.strides, &lists.dilations].into_iter().find(|list| list.len() != rank);
        match wrong {
            Some(list) => Err(OperatorError::WrongLength { expected: rank, found: list.len() }),
            None if lists.pads.len() != 2 * rank => {
                Err(OperatorError::WrongLength { expected: 2 * rank, found: lists.pads.len() })
            }
            None => Ok(lists),
        }
    }
}

/// Lists of as many entries as there are spatial axes.
struct Lists {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
}

impl Lists {
    /// The lists as pairs, `input` the extents; the output is left open.
    fn placed(&self, input: &[usize]) -> Result<Placed, OperatorError> {
        let pair = |list: &[usize], one: usize| match *list {
            [x] => Ok([one, x]),
            [y, x] => Ok([y, x]),
            _ => Err(OperatorError::WrongRank { expected: "one or two spatial", found: input.to_vec() }),
        };
        let rank = self.kernel.len();
        Ok(Placed {
            input: pair(input, 1)?,
            output: [1, 1],
            kernel: pair(&self.kernel, 1)?,
            strides: pair(&self.strides, 1)?,
            dilations: pair(&self.dilations, 1)?,
            pads: pair(&self.pads[..rank], 0)?,
            end_pads: pair(&self.pads[rank..], 0)?,
        })
    }
}

impl Placed {
    /// Cells from the first to the last tap.
    fn span(&self, axis: usize) -> usize {
        self.kernel[axis].saturating_sub(1).saturating_mul(self.dilations[axis]).saturating_add(1)
    }

    /// Pads an axis by `total`; where that is odd, one more before than behind if `before`, else one less.
    fn split(&mut self, axis: usize, total: usize, before: bool) {
        let (less, more) = (total / 2, total - total / 2);
        (self.pads[axis], self.end_pads[axis]) = if before { (more, less) } else { (less, more) };
    }

    /// The spatial extents of the output, of `rank` axes.
    pub fn output_dims(&self, rank: usize) -> &[usize] {
        &self.output[2 - rank..]
    }

    /// The spatial extents of the input, of `rank` axes.
    pub fn input_dims(&self, rank: usize) -> &[usize] {
        &self.input[2 - rank..]
    }
}
