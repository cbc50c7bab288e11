//! Which hidden units of a network may change places: for each, the places in the tensors that must change with it.
//!
//! A unit is an output of a layer, or a channel of a convolution. Permuting the units of a [`UnitGroup`] in the same way in
//! all its [`Member`]s leaves every output of the graph as it was, but for the rounding of sums in another order. What cannot
//! be proved free is [`Pinned`], with the reason. Names, dims and types are enough for that: no weight is read.
//!
//! The analysis walks the nodes in order, with a set of interchangeable units on every axis of every value ([`families`]).
//! Each axis of a float constant starts as such a set of its own; a rule per operator ([`rules`]) ties axes whose positions
//! must move together, and pins those that may not move at all.
//!
//! On it stand [`find_order`], which puts similar units side by side, [`find_read`], which finds those that nobody reads,
//! [`find_constants`], which finds those that do not depend on the input, and [`Picks`], which rearranges the tensors. The latter
//! two read weights. [`Copies`] tells apart units that are the same.
//!
//! # Source
//! Basu and Varshney, "Universal and succinct source coding of deep neural networks", arXiv:1804.02800, on what the order of
//! hidden units is worth. The rules follow from the definitions of the operators of ONNX, opsets 9 to 21.

mod constants;
mod copies;
mod families;
mod fold;
mod order;
mod picks;
mod rules;
#[cfg(test)]
mod tests;
mod unread;
mod value;
mod walk;

use tract_onnx::pb::ModelProto;

pub use copies::Copies;
pub use fold::{Folds, Search, find_constants};
pub use order::{Cells, find_order};
pub use picks::Picks;
pub use unread::{Zeros, find_read};

/// What [`analyze`] finds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnitGroups {
    /// Sets of two and more units, in the order in which the model first mentions them.
    pub groups: Vec<UnitGroup>,
    /// Axes, or stretches of them, that must stay as they are; in the order of the model.
    pub pinned: Vec<Pinned>,
}

/// Units that may change places with each other.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitGroup {
    /// How many.
    pub units: usize,
    /// Where they are found: every place changes, or none.
    pub members: Vec<Member>,
    /// Why none of them may be taken away; `None` where the graph works with fewer units too, and they reach its outputs through
    /// products with constants alone.
    pub fixed_size: Option<String>,
}

/// A stretch of an axis of a constant: unit `u` has the positions from `start + u x block` to `start + (u + 1) x block`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The constant: an initializer, or the output of a Constant node, of the main graph.
    pub tensor: String,
    /// Which of its dimensions.
    pub axis: usize,
    /// Positions along it.
    pub len: usize,
    /// Position of the first unit.
    pub start: usize,
    /// Positions of each unit, at least 1.
    pub block: usize,
    /// A product sums over the axis: where all of a unit's cells are zero, this product does not read it.
    pub is_summed: bool,
}

/// A stretch of an axis whose positions may not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The constant.
    pub tensor: String,
    /// Which of its dimensions.
    pub axis: usize,
    /// For people, e.g. `an output of the graph`.
    pub reason: String,
}

/// Finds the units of a graph that may change places.
pub fn analyze(model: &ModelProto) -> UnitGroups {
    model.graph.as_ref().map(walk::groups).unwrap_or_default()
}
