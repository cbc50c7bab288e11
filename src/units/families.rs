//! Families: sets of units that may change places with each other, joined and cut as the walk finds out more.
//!
//! An axis is a list of [`Segment`]s, each a run of positions that one family's units share in equal blocks. Two axes whose
//! positions must move together are tied: where their segments have equal lengths, two families become one; where not,
//! the longer one is cut in two. The forest is a union-find whose nodes may also be cuts.

use std::rc::Rc;

/// A run of consecutive positions of an axis: the family's units in order, each with `len / units` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub family: usize,
    pub len: usize,
}

/// The positions of an axis; empty where none of them may move.
pub(super) type Segments = Rc<[Segment]>;

/// Longest list of segments. One that would be longer is of positions that stay where they are.
const MAX_SEGMENTS: usize = 1024;

/// Most segments made in all: a bound on memory for graphs made to exhaust it.
const SEGMENT_BUDGET: usize = 1 << 21;

#[derive(Debug)]
enum Node {
    Root(Root),
    Joined(usize),
    /// The first units are those of one family, the others those of another.
    Cut {
        first: usize,
        second: usize,
        /// Units in the first, and in both, when it was cut. Every length is a multiple of the latter.
        at: usize,
        of: usize,
    },
}

/// What is known of a family.
#[derive(Debug, Clone, Default)]
pub(super) struct Root {
    pub units: usize,
    /// Why its units may not change places.
    pub pinned: Option<Rc<str>>,
    /// Why units may not be taken away, though they may change places.
    pub sized: Option<Rc<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Families {
    nodes: Vec<Node>,
    made: usize,
}

impl Families {
    /// A new family that takes up an axis of `len` positions, a unit each.
    pub(super) fn axis(&mut self, len: usize) -> Segments {
        let family = self.add(Root { units: len, ..Root::default() });
        self.list(vec![Segment { family, len }])
    }

    /// An axis of `len` positions that may not move.
    pub(super) fn pinned_axis(&mut self, len: usize, reason: &str) -> Segments {
        let segments = self.axis(len);
        self.pin(&segments, reason);
        segments
    }

    /// `list` as an axis; one whose positions may not move where it is too long.
    pub(super) fn list(&mut self, list: Vec<Segment>) -> Segments {
        self.made = self.made.saturating_add(list.len());
        if list.len() > MAX_SEGMENTS || self.made > SEGMENT_BUDGET {
            self.pin(&list, "in too many pieces");
            return Rc::default();
        }
        list.into()
    }

    /// Forbids the units on `axis` to change places.
    pub(super) fn pin(&mut self, axis: &[Segment], reason: &str) {
        for segment in self.expand(axis) {
            self.root_mut(segment.family).pinned.get_or_insert_with(|| reason.into());
        }
    }

    /// Forbids units on `axis` to be taken away.
    pub(super) fn hold_size(&mut self, axis: &[Segment], reason: &str) {
        for segment in self.expand(axis) {
            self.root_mut(segment.family).sized.get_or_insert_with(|| reason.into());
        }
    }

    /// Lets the positions of two axes of equal length move only together.
    pub(super) fn tie(&mut self, a: &[Segment], b: &[Segment]) {
        let mut left = self.expand(a);
        let mut right = self.expand(b);
        left.reverse();
        right.reverse();
        loop {
            // An earlier step may have cut or joined what was expanded before.
            let (x, y) = match (self.next(&mut left), self.next(&mut right)) {
                (Some(x), Some(y)) => (x, y),
                (None, None) => return,
                (x, y) => {
                    left.extend(x.into_iter().chain(y).chain(right));
                    return self.pin(&left, "tied to an axis of another length");
                }
            };
            if x.len == y.len {
                self.join(x.family, y.family);
                continue;
            }
            let (long, short) = if x.len > y.len { (x, y) } else { (y, x) };
            left.push(x);
            right.push(y);
            if left.len() + right.len() > 2 * MAX_SEGMENTS || !self.cut(long, short.len) {
                left.append(&mut right);
                return self.pin(&left, "tied to units in other places");
            }
        }
    }

    /// Takes the last segment of a reversed list, as the families are now.
    fn next(&mut self, reversed: &mut Vec<Segment>) -> Option<Segment> {
        let segment = reversed.pop()?;
        reversed.extend(self.expand(&[segment]).into_iter().rev());
        reversed.pop()
    }

    /// Cuts an axis after `at` positions; `None`, and nothing may move, where that is inside a unit or beyond the end.
    pub(super) fn split(&mut self, axis: &[Segment], at: usize) -> Option<(Vec<Segment>, Vec<Segment>)> {
        let (mut first, mut start) = (Vec::new(), 0);
        let mut rest = self.expand(axis);
        rest.reverse();
        while start < at {
            let segment = rest.pop()?;
            if segment.len <= at - start {
                start += segment.len;
                first.push(segment);
            } else if self.cut(segment, at - start) {
                rest.extend(self.expand(&[segment]).into_iter().rev());
            } else {
                self.pin(axis, "cut inside a unit");
                return None;
            }
        }
        rest.reverse();
        Some((first, rest))
    }

    /// Lets the positions of `axis` move only in blocks of `block`. False, and nothing may move, where they cannot.
    pub(super) fn coarsen(&mut self, axis: &[Segment], block: usize) -> bool {
        let segments = self.expand(axis);
        let fits = segments.iter().all(|s| s.len.is_multiple_of(block));
        for &Segment { family, len } in &segments {
            if fits {
                let root = self.root_mut(family);
                root.units = gcd(root.units, len / block);
            }
        }
        if !fits {
            self.pin(axis, "in blocks of another size");
        }
        fits
    }

    /// `axis` in terms of the families as they are now.
    pub(super) fn expand(&mut self, axis: &[Segment]) -> Vec<Segment> {
        let mut stack: Vec<Segment> = axis.iter().rev().copied().collect();
        let mut out = Vec::with_capacity(stack.len());
        while let Some(Segment { family, len }) = stack.pop() {
            let family = self.find(family);
            match self.nodes[family] {
                Node::Cut { first, second, at, of } => {
                    let head = len / of * at;
                    stack.push(Segment { family: second, len: len - head });
                    stack.push(Segment { family: first, len: head });
                }
                _ => out.push(Segment { family, len }),
            }
        }
        out
    }

    /// What is known of the family of an expanded segment.
    pub(super) fn root(&self, family: usize) -> &Root {
        match &self.nodes[family] {
            Node::Root(root) => root,
            _ => unreachable!("expanded segments are of roots"),
        }
    }

    fn root_mut(&mut self, family: usize) -> &mut Root {
        match &mut self.nodes[family] {
            Node::Root(root) => root,
            _ => unreachable!("expanded segments are of roots"),
        }
    }

    fn add(&mut self, root: Root) -> usize {
        self.nodes.push(Node::Root(root));
        self.nodes.len() - 1
    }

    /// The root or cut that `family` has become.
    fn find(&mut self, family: usize) -> usize {
        let mut end = family;
        while let Node::Joined(next) = self.nodes[end] {
            end = next;
        }
        let mut at = family;
        while let Node::Joined(next) = self.nodes[at] {
            self.nodes[at] = Node::Joined(end);
            at = next;
        }
        end
    }

    /// Makes one family of two roots that take up the same length: their units become blocks that fit both.
    fn join(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let other = self.root(b).clone();
        let root = self.root_mut(a);
        root.units = gcd(root.units, other.units);
        root.pinned = root.pinned.take().or(other.pinned);
        root.sized = root.sized.take().or(other.sized);
        self.nodes[b] = Node::Joined(a);
    }

    /// Cuts the family of an expanded segment `at` positions behind the segment's start. False if that is inside a unit.
    fn cut(&mut self, segment: Segment, at: usize) -> bool {
        let Root { units, pinned, sized } = self.root(segment.family).clone();
        let block = segment.len / units;
        if block == 0 || !at.is_multiple_of(block) {
            return false;
        }
        let (of, at) = (units, at / block);
        let first = self.add(Root { units: at, pinned: pinned.clone(), sized: sized.clone() });
        let second = self.add(Root { units: of - at, pinned, sized });
        self.nodes[segment.family] = Node::Cut { first, second, at, of };
        true
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(families: &mut Families, axis: &[Segment]) -> Vec<(usize, usize)> {
        let segments = families.expand(axis);
        segments.iter().map(|s| (s.len, families.root(s.family).units)).collect()
    }

    #[test]
    fn tied_axes_share_a_family_at_the_coarser_grain() {
        let mut families = Families::default();
        let (fine, coarse, scaled) = (families.axis(12), families.axis(4), families.axis(12));
        families.tie(&fine, &scaled);
        let wide = [Segment { len: 12, ..coarse[0] }];
        families.tie(&wide, &fine);
        assert_eq!(units(&mut families, &scaled), [(12, 4)]);
        assert_eq!(families.expand(&fine), families.expand(&wide));
    }

    #[test]
    fn a_long_family_is_cut_where_two_others_meet() {
        let mut families = Families::default();
        let (a, b, both) = (families.axis(3), families.axis(5), families.axis(8));
        families.tie(&[a[0], b[0]], &both);
        assert_eq!(units(&mut families, &both), [(3, 3), (5, 5)]);
        // Another axis of the same family, each unit a block of ten.
        assert_eq!(units(&mut families, &[Segment { len: 80, ..both[0] }]), [(30, 3), (50, 5)]);
        families.pin(&a, "why");
        let expanded = families.expand(&both);
        assert_eq!(families.root(expanded[0].family).pinned.as_deref(), Some("why"));
        assert_eq!(families.root(expanded[1].family).pinned, None);
    }

    #[test]
    fn a_cut_inside_a_unit_pins() {
        let mut families = Families::default();
        let (a, b, both) = (families.axis(3), families.axis(5), families.axis(8));
        assert!(families.coarsen(&both, 4));
        families.tie(&[a[0], b[0]], &both);
        for axis in [&a, &b, &both] {
            let family = families.expand(axis)[0].family;
            assert!(families.root(family).pinned.is_some());
        }
    }

    #[test]
    fn an_axis_tied_to_its_own_halves_ends() {
        let mut families = Families::default();
        let axis = families.axis(48);
        let blocks = [Segment { len: 96, ..axis[0] }];
        families.tie(&blocks, &[axis[0], axis[0]]);
        let segments = families.expand(&axis);
        assert_eq!(segments.iter().map(|s| s.len).sum::<usize>(), 48);
        assert!(segments.iter().all(|s| families.root(s.family).pinned.is_some()));
    }

    #[test]
    fn lists_beyond_the_bound_are_pinned() {
        let mut families = Families::default();
        let axis = families.axis(2);
        assert!(families.list(vec![axis[0]; MAX_SEGMENTS + 1]).is_empty());
        assert!(families.root(axis[0].family).pinned.is_some());
    }
}
