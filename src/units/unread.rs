//! Units that nobody reads: every product that sums over them multiplies them by zero.
//!
//! Without them every output is the same, whatever they were. When a unit goes, so do its own weights, and units before it may
//! lose their last reader.

use std::collections::{BTreeSet, HashMap};

use super::{Member, UnitGroup};

/// Positions of an axis that are gone, by tensor and axis.
type Gone<'a> = HashMap<(&'a str, usize), Vec<bool>>;

/// The dimensions of a tensor, and a byte for each element: 0 where it is zero.
pub type Zeros = (Vec<usize>, Vec<u8>);

/// For each group, its units that somebody reads, in order: all of those without which the number of units would be wrong
/// or zero. Those of `taken`, never all of a group, are gone from the start. `load` gives the elements of a tensor; `None` stands for elements none of which are zero.
///
/// # Errors
/// Those of `load`.
pub fn find_read<E>(
    groups: &[UnitGroup],
    taken: &[Vec<u32>],
    mut load: impl FnMut(&str) -> Result<Option<Zeros>, E>,
) -> Result<Vec<Vec<u32>>, E> {
    let mut read: Vec<Vec<bool>> = groups.iter().map(|group| vec![true; group.units]).collect();
    let mut gone = Gone::new();
    for ((group, units), read) in groups.iter().zip(taken).zip(&mut read) {
        units.iter().for_each(|&unit| read[unit as usize] = false);
        take(group, units.iter().map(|&unit| unit as usize), &mut gone);
    }
    let is_open = |group: &UnitGroup| group.fixed_size.is_none() && group.members.iter().any(|m| m.is_summed);
    // From the last group on: what goes there frees what is before it.
    let mut pending: BTreeSet<usize> = (0..groups.len()).filter(|&index| is_open(&groups[index])).collect();
    while let Some(index) = pending.pop_last() {
        let group = &groups[index];
        let mut now = readers(group, &gone, &mut load)?;
        let left = |unit: &usize| read[index][*unit];
        if !(0..group.units).filter(left).any(|unit| now[unit])
            && let Some(first) = (0..group.units).find(left)
        {
            now[first] = true;
        }
        let lost: Vec<usize> = (0..group.units).filter(|&unit| read[index][unit] && !now[unit]).collect();
        if lost.is_empty() {
            continue;
        }
        take(group, lost.iter().copied(), &mut gone);
        for member in &group.members {
            let reads = |other: &Member| other.is_summed && other.tensor == member.tensor;
            let touched = (0..groups.len()).filter(|&i| is_open(&groups[i]) && groups[i].members.iter().any(reads));
            pending.extend(touched.filter(|&i| i != index));
        }
        lost.iter().for_each(|&unit| read[index][unit] = false);
    }
    let listed = |read: Vec<bool>| (0u32..).zip(read).filter(|(_, is_read)| *is_read).map(|(unit, _)| unit).collect();
    Ok(read.into_iter().map(listed).collect())
}

/// Marks the positions of `units` as gone.
fn take<'a>(group: &'a UnitGroup, units: impl Iterator<Item = usize> + Clone, gone: &mut Gone<'a>) {
    for member in &group.members {
        let mut units = units.clone().peekable();
        if units.peek().is_none() {
            return;
        }
        let positions = gone.entry((&member.tensor, member.axis)).or_insert_with(|| vec![false; member.len]);
        for unit in units {
            positions[member.start + unit * member.block..][..member.block].fill(true);
        }
    }
}

/// Which units of `group` meet an element that is neither zero nor gone, in a product that sums over them.
fn readers<E>(
    group: &UnitGroup,
    gone: &Gone,
    load: &mut impl FnMut(&str) -> Result<Option<Zeros>, E>,
) -> Result<Vec<bool>, E> {
    let mut read = vec![false; group.units];
    for member in group.members.iter().filter(|member| member.is_summed) {
        let Some((dims, bytes)) = load(&member.tensor)? else {
            read.fill(true);
            break;
        };
        let axes: Vec<Option<&Vec<bool>>> = (0..dims.len()).map(|axis| gone.get(&(&*member.tensor, axis))).collect();
        let inner: usize = dims[member.axis + 1..].iter().product();
        let slab = inner * member.block;
        for outer in (0..bytes.len()).step_by((dims[member.axis] * inner).max(1)) {
            for (unit, read) in read.iter_mut().enumerate().filter(|(_, read)| !**read) {
                let first = outer + member.start * inner + unit * slab;
                let cells = first..first + slab;
                *read = cells.into_iter().any(|cell| bytes[cell] != 0 && !is_gone(cell, &dims, &axes));
            }
        }
    }
    Ok(read)
}

/// Whether element `cell` of a tensor lies at a position that is gone.
fn is_gone(cell: usize, dims: &[usize], gone: &[Option<&Vec<bool>>]) -> bool {
    let mut rest = cell;
    dims.iter().zip(gone).rev().any(|(&len, gone)| {
        let position = rest % len;
        rest /= len;
        gone.is_some_and(|gone| gone[position])
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn member(tensor: &str, axis: usize, len: usize, is_summed: bool) -> Member {
        Member { tensor: tensor.into(), axis, len, start: 0, block: 1, is_summed }
    }

    fn group(units: usize, members: Vec<Member>) -> UnitGroup {
        UnitGroup { units, members, fixed_size: None }
    }

    /// Two hidden layers: `a` (3 x inputs), `b` (2 x 3), `c` (1 x 2).
    fn layers() -> [UnitGroup; 2] {
        [
            group(3, vec![member("a", 0, 3, false), member("b", 1, 3, true)]),
            group(2, vec![member("b", 0, 2, false), member("c", 1, 2, true)]),
        ]
    }

    fn read(groups: &[UnitGroup], b: [u8; 6], c: [u8; 2]) -> Vec<Vec<u32>> {
        let load = |name: &str| {
            Ok::<_, Infallible>(match name {
                "b" => Some((vec![2, 3], b.to_vec())),
                "c" => Some((vec![1, 2], c.to_vec())),
                _ => None,
            })
        };
        find_read(groups, &[], load).unwrap()
    }

    #[test]
    fn a_unit_that_meets_only_zeros_is_unread_and_takes_its_own_readings_along() {
        assert_eq!(read(&layers(), [1, 0, 0, 1, 1, 0], [1, 1]), [vec![0, 1], vec![0, 1]]);
        // Without the second unit of the second layer, nobody reads the second of the first.
        assert_eq!(read(&layers(), [1, 0, 0, 1, 1, 0], [1, 0]), [vec![0], vec![0]]);
    }

    #[test]
    fn a_unit_that_is_gone_reads_nothing_and_does_not_come_back() {
        let load = |name: &str| Ok::<_, Infallible>((name == "b").then(|| (vec![2, 3], vec![1, 0, 0, 1, 1, 0])));
        assert_eq!(find_read(&layers(), &[vec![], vec![1]], load), Ok(vec![vec![0], vec![0]]));
        assert_eq!(find_read(&layers(), &[vec![0, 1], vec![]], load), Ok(vec![vec![2], vec![0, 1]]));
    }

    #[test]
    fn one_unit_stays_and_a_fixed_number_stays() {
        assert_eq!(read(&layers(), [0; 6], [1, 1]), [vec![0], vec![0, 1]]);
        let mut fixed = layers();
        fixed[1].fixed_size = Some("why".into());
        assert_eq!(read(&fixed, [1, 0, 0, 0, 1, 0], [1, 0]), [vec![0, 1], vec![0, 1]]);
    }

    #[test]
    fn what_cannot_be_loaded_reads_everything() {
        let groups = [group(3, vec![member("b", 1, 3, true), member("z", 0, 3, true)])];
        assert_eq!(read(&groups, [0; 6], [0; 2]), [vec![0, 1, 2]]);
    }
}
