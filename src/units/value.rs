//! What the walk knows of a value between two nodes: its extents, the units on its axes, and small integers it may hold.

use std::rc::Rc;

use tract_onnx::pb::{AttributeProto, NodeProto};

use super::families::Segments;

/// A number that the graph works with: an extent, or an element of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Known(i64),
    /// Unknown; equal symbols are equal numbers.
    Symbol(u32),
}

/// One axis of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    pub extent: Number,
    /// The units along it; empty where positions stay where they are. Never of an axis of one position.
    pub units: Segments,
    /// On a constant: which one, and which of its axes.
    pub origin: Option<(usize, usize)>,
}

impl Axis {
    pub(super) fn fixed(extent: Number) -> Self {
        Self { extent, units: Rc::default(), origin: None }
    }

    pub(super) fn is_one(&self) -> bool {
        self.extent == Number::Known(1)
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self.extent {
            Number::Known(extent) => usize::try_from(extent).ok(),
            Number::Symbol(_) => None,
        }
    }
}

/// A value between two nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Value {
    /// `None`: of unknown rank, and nothing on it moves.
    pub axes: Option<Vec<Axis>>,
    /// Its elements, where it is a short list of integers.
    pub numbers: Option<Rc<[Number]>>,
    /// Known before the graph runs: the origins of its axes are its own.
    pub is_constant: bool,
}

impl Value {
    pub(super) fn of(axes: Vec<Axis>) -> Self {
        Self { axes: Some(axes), ..Self::default() }
    }

    /// All elements of a list of known integers.
    pub(super) fn integers(&self) -> Option<Vec<i64>> {
        let known = |number: &Number| match number {
            Number::Known(n) => Some(*n),
            Number::Symbol(_) => None,
        };
        self.numbers.as_ref()?.iter().map(known).collect()
    }
}

/// A node with the attributes that rules ask for.
#[derive(Clone, Copy)]
pub(super) struct Node<'a>(pub &'a NodeProto);

impl<'a> Node<'a> {
    fn attribute(self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(super) fn int(self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub(super) fn ints(self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    pub(super) fn float(self, name: &str, default: f32) -> f64 {
        self.attribute(name).map_or(default, |a| a.f).into()
    }

    pub(super) fn text(self, name: &str) -> &'a [u8] {
        self.attribute(name).map_or(&[], |a| a.s.as_slice())
    }

    /// Outputs that somebody may read.
    pub(super) fn outputs(self) -> usize {
        self.0.output.iter().filter(|name| !name.is_empty()).count()
    }
}

/// Axis `axis` of `rank`, counted from the end where it is negative.
pub(super) fn axis_index(axis: i64, rank: usize) -> Option<usize> {
    let index = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(index).ok().filter(|&index| index < rank)
}
