//! The delta tree: which row had better be held as another row plus a sparse difference.
//!
//! A minimum spanning tree of the rows and the zero row under the Hamming distance of their cells, found by Prim's
//! algorithm: one row after the other joins the tree at the row it differs least from. Distances are computed as they are
//! needed, from bit planes, and only those are kept that say how near each row is to the tree, so memory grows with the
//! rows, not with their square. Matrices whose square would take too long are cut in groups of rows that are likely to
//! be similar, by min-hashes of where they are not zero (Broder, "On the resemblance and containment of documents",
//! 1997), and a tree is found in each.
//!
//! A chain of sums adds up rounding errors, so the depth is bounded: from the leaves up, a row below which the tree has
//! reached the bound is cut off and held in full, which takes the fewest cuts that can do.

use rayon::prelude::*;

/// Words of bit planes that are compared in all, at most: some tenths of a second.
const MOST_WORDS: usize = 1 << 30;

/// A pair of rows is looked at for as long as the comparison of so many words takes.
const LEAST_WORDS: usize = 16;

/// Words of bit planes that a group may take: 32 MiB.
const MOST_GROUP_WORDS: usize = 1 << 22;

/// Rows of a group whose nearest neighbours are looked up to learn whether there are similar rows at all.
const PROBES: usize = 32;

/// A tree is worth the search where the probes would save this share of their non-zeros: one in so many.
const LEAST_SHARE: usize = 8;

/// Min-hashes of a row's sketch; rows that agree in the first stand together, those that agree in more are neighbours.
const HASHES: usize = 4;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeltaTree {
    /// The row whose difference each row is held as; `None` for a row that is held in full.
    pub(crate) parents: Vec<Option<u32>>,
    /// All rows, parents before their children.
    pub(crate) order: Vec<u32>,
}

/// The rows among which a tree is to be found.
pub(crate) struct Rows<'a> {
    pub(crate) count: usize,
    pub(crate) cols: usize,
    /// Writes the symbols of a row to a slice of `cols`; 0 is the symbol of zero, and all are below `levels`.
    pub(crate) read: &'a (dyn Fn(usize, &mut [u8]) + Sync),
    pub(crate) levels: usize,
}

impl DeltaTree {
    /// Finds a tree in which no row has more than `depth` rows above it. `None` if too few cells would be saved. Depends on
    /// nothing but the rows; parallel over groups on the current rayon pool.
    ///
    /// # Panics
    /// If there are more than 256 levels.
    pub(crate) fn find(rows: &Rows, depth: u32) -> Option<Self> {
        let planes = rows.levels.next_power_of_two().ilog2();
        let groups = groups(rows, planes as usize * rows.cols.div_ceil(64));
        match planes {
            0 => None,
            1 => find_in::<1>(rows, &groups, depth),
            2 => find_in::<2>(rows, &groups, depth),
            3 => find_in::<3>(rows, &groups, depth),
            4 => find_in::<4>(rows, &groups, depth),
            5 => find_in::<5>(rows, &groups, depth),
            6 => find_in::<6>(rows, &groups, depth),
            7 => find_in::<7>(rows, &groups, depth),
            8 => find_in::<8>(rows, &groups, depth),
            _ => panic!("{} levels", rows.levels),
        }
    }

    /// How many rows stand above each.
    pub(crate) fn depths(&self) -> Vec<u32> {
        let mut depths = vec![0; self.parents.len()];
        for &row in &self.order {
            depths[row as usize] = self.parents[row as usize].map_or(0, |parent| depths[parent as usize] + 1);
        }
        depths
    }

    /// Cuts off rows, in favour of being held in full, until none has more than `most` above it.
    fn limit_depth(&mut self, most: u32) {
        let mut heights = vec![0; self.parents.len()];
        for &row in self.order.iter().rev() {
            let height = heights[row as usize];
            let parent = &mut self.parents[row as usize];
            match *parent {
                Some(_) if height >= most => *parent = None,
                Some(parent) => heights[parent as usize] = heights[parent as usize].max(height + 1),
                None => {}
            }
        }
    }
}

fn find_in<const PLANES: usize>(rows: &Rows, groups: &[Vec<u32>], depth: u32) -> Option<DeltaTree> {
    let found: Vec<Vec<Link>> = groups.par_iter().map(|group| Bits::<PLANES>::read(rows, group).links()).collect();
    let mut tree = DeltaTree { parents: vec![None; rows.count], order: Vec::with_capacity(rows.count) };
    for (group, links) in groups.iter().zip(found) {
        for Link { row, parent } in links {
            tree.parents[group[row as usize] as usize] = parent.map(|parent| group[parent as usize]);
            tree.order.push(group[row as usize]);
        }
    }
    tree.limit_depth(depth);
    tree.parents.iter().any(Option::is_some).then_some(tree)
}

/// The rows cut in groups of bounded work, similar rows in the same; `words` is what a row takes.
fn groups(rows: &Rows, words: usize) -> Vec<Vec<u32>> {
    let words = words.max(LEAST_WORDS);
    // A group of g rows compares g^2 / 2 pairs.
    let affordable = (2 * MOST_WORDS / words / rows.count.max(1)).min(MOST_GROUP_WORDS / words);
    let group = affordable.max(2 * PROBES);
    if rows.count <= group {
        return vec![(0..rows.count as u32).collect()];
    }
    let mut sketched: Vec<_> = (0..rows.count as u32).into_par_iter().map(|row| (sketch(rows, row), row)).collect();
    sketched.par_sort_unstable();
    sketched.chunks(group).map(|group| group.iter().map(|&(_, row)| row).collect()).collect()
}

/// The least hashes of the columns where `row` is not zero, by several hash functions.
fn sketch(rows: &Rows, row: u32) -> [u32; HASHES] {
    let mut cells = vec![0; rows.cols];
    (rows.read)(row as usize, &mut cells);
    let mut least = [u32::MAX; HASHES];
    for (col, _) in cells.iter().enumerate().filter(|&(_, &symbol)| symbol != 0) {
        for (i, least) in least.iter_mut().enumerate() {
            // Knuth's multiplicative hash twice, so that neighbours part.
            let hash =
                (col as u32 + 1).wrapping_mul(0x9e37_79b1).rotate_left(7 * i as u32 + 13).wrapping_mul(0x85eb_ca6b);
            *least = hash.min(*least);
        }
    }
    least
}

/// Rows of a group as bit planes: bit `i` of `words[w][p]` is bit `p` of the symbol in column `64 w + i`.
struct Bits<const PLANES: usize> {
    words: Vec<[u64; PLANES]>,
    words_per_row: usize,
    /// Number of cells of each row that are not zero.
    nonzeros: Vec<u32>,
}

/// A row and the row it joined the tree at, as numbers in their group.
#[derive(Clone, Copy)]
struct Link {
    row: u32,
    parent: Option<u32>,
}

/// A row that is not in the tree yet, and how near it is to it.
struct Outside {
    link: Link,
    distance: u32,
}

impl<const PLANES: usize> Bits<PLANES> {
    fn read(rows: &Rows, group: &[u32]) -> Self {
        let words_per_row = rows.cols.div_ceil(64);
        let mut words = Vec::with_capacity(group.len() * words_per_row);
        let mut cells = vec![0; rows.cols];
        for &row in group {
            (rows.read)(row as usize, &mut cells);
            for cells in cells.chunks(64) {
                words.push(std::array::from_fn(|plane| {
                    cells.iter().rev().fold(0, |word, symbol| word << 1 | u64::from(symbol >> plane & 1))
                }));
            }
        }
        let mut bits = Self { words, words_per_row, nonzeros: Vec::new() };
        let zero = vec![[0; PLANES]; words_per_row];
        bits.nonzeros = (0..group.len()).map(|row| differences(bits.row(row as u32), &zero)).collect();
        bits
    }

    fn row(&self, row: u32) -> &[[u64; PLANES]] {
        &self.words[row as usize * self.words_per_row..][..self.words_per_row]
    }

    /// The rows in the order in which they join the tree; alone, all of them, where a tree would save too little.
    fn links(&self) -> Vec<Link> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("popcnt") {
            // SAFETY: the processor counts bits.
            return unsafe { self.links_counted() };
        }
        self.links_portable()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "popcnt")]
    fn links_counted(&self) -> Vec<Link> {
        self.links_portable()
    }

    #[inline(always)]
    fn links_portable(&self) -> Vec<Link> {
        let rows = 0..self.nonzeros.len() as u32;
        if self.is_worthwhile() { self.span() } else { rows.map(|row| Link { row, parent: None }).collect() }
    }

    /// Whether some rows, evenly spread, have neighbours that differ from them in few cells.
    #[inline(always)]
    fn is_worthwhile(&self) -> bool {
        let count = self.nonzeros.len();
        let (mut nonzeros, mut differing) = (0, 0);
        for probe in (0..count).step_by(count.div_ceil(PROBES).max(1)) {
            let others = (0..count).filter(|&row| row != probe);
            let nearest = others.map(|row| differences(self.row(probe as u32), self.row(row as u32))).min();
            nonzeros += self.nonzeros[probe] as usize;
            differing += nearest.map_or(self.nonzeros[probe], |d| d.min(self.nonzeros[probe])) as usize;
        }
        differing + nonzeros / LEAST_SHARE < nonzeros
    }

    /// Prim's algorithm from the zero row. Of rows equally near, the first joins; of equal parents, it joins at the one
    /// that has been in the tree for longer.
    #[inline(always)]
    fn span(&self) -> Vec<Link> {
        let outside = |(row, &distance)| Outside { link: Link { row: row as u32, parent: None }, distance };
        let mut outside: Vec<Outside> = self.nonzeros.iter().enumerate().map(outside).collect();
        let mut joined = Vec::with_capacity(outside.len());
        let mut nearest = (0..outside.len()).min_by_key(|&i| outside[i].distance);
        while let Some(i) = nearest {
            let Link { row, parent } = outside.swap_remove(i).link;
            joined.push(Link { row, parent });
            nearest = None;
            let mut least = (u32::MAX, u32::MAX);
            for (i, other) in outside.iter_mut().enumerate() {
                // The distance is at least the difference of the numbers of non-zeros.
                let at_least = self.nonzeros[row as usize].abs_diff(self.nonzeros[other.link.row as usize]);
                if at_least < other.distance {
                    let distance = differences(self.row(row), self.row(other.link.row));
                    if distance < other.distance {
                        *other = Outside { link: Link { parent: Some(row), ..other.link }, distance };
                    }
                }
                if (other.distance, other.link.row) < least {
                    least = (other.distance, other.link.row);
                    nearest = Some(i);
                }
            }
        }
        joined
    }
}

/// Number of cells in which two rows differ.
#[inline(always)]
fn differences<const PLANES: usize>(a: &[[u64; PLANES]], b: &[[u64; PLANES]]) -> u32 {
    let differing =
        |(a, b): (&[u64; PLANES], &[u64; PLANES])| (0..PLANES).fold(0, |bits, plane| bits | (a[plane] ^ b[plane]));
    a.iter().zip(b).map(|words| differing(words).count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of one digit a cell.
    fn find(rows: &[&str], depth: u32) -> Option<DeltaTree> {
        let read = |row: usize, out: &mut [u8]| {
            out.iter_mut().zip(rows[row].bytes()).for_each(|(out, digit)| *out = digit - b'0');
        };
        DeltaTree::find(&Rows { count: rows.len(), cols: rows[0].len(), read: &read, levels: 10 }, depth)
    }

    #[test]
    fn rows_join_where_they_differ_least() {
        let tree = find(&["1112222", "3333330", "0112222", "1112223", "3333333", "4000000"], 9).unwrap();
        // The last row is nearest to zero, the third has six cells, the first and the fourth follow it.
        assert_eq!(tree.parents, [Some(2), None, None, Some(0), Some(1), None]);
        assert_eq!(tree.order, [5, 1, 4, 2, 0, 3]);
        assert_eq!(tree.depths(), [1, 0, 0, 2, 1, 0]);
    }

    #[test]
    fn rows_that_share_nothing_have_no_tree() {
        assert_eq!(find(&["1200", "0034", "5000", "0600"], 9), None);
        assert_eq!(find(&["000", "000"], 9), None);
    }

    #[test]
    fn a_chain_is_cut_from_its_end() {
        let rows: Vec<String> = (0..10).map(|i| "1".repeat(50 + i) + &"0".repeat(10 - i)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let tree = find(&rows, 3).unwrap();
        // Rows 0 to 9 chain up: the last four are one piece, then four more, and two remain.
        assert_eq!(tree.depths(), [0, 1, 0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(find(&rows, 9).unwrap().depths(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn many_rows_are_cut_in_groups_of_similar_ones() {
        // Eight kinds of rows; those of a kind differ in one cell.
        let (count, cols) = (400, 512);
        let read = |row: usize, out: &mut [u8]| {
            out.fill(0);
            (0..40).for_each(|i| out[(row % 8 * 97 + i * i * 31) % cols] = 1 + (i % 20) as u8);
            out[row * 5 % cols] ^= 1;
        };
        let rows = Rows { count, cols, read: &read, levels: 32 };
        let groups = groups(&rows, MOST_GROUP_WORDS / 64);
        assert!(groups.iter().all(|group| group.len() <= 81), "{} groups", groups.len());
        let mut all = groups.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..count as u32));
        let tree = find_in::<5>(&rows, &groups, 30).unwrap();
        let full = tree.parents.iter().filter(|parent| parent.is_none()).count();
        assert!(full < count / 8, "{full} rows in full");
        assert!(tree.depths().into_iter().all(|depth| depth <= 30));
    }
}
