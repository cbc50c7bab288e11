//! Distinct keys with counts, as long as there are not too many.

/// Keys gathered before they are sorted and counted.
const PENDING: usize = 1 << 16;

/// A sorted list of distinct keys and how often each occurred; it gives up beyond a limit.
#[derive(Debug, Clone)]
pub(super) struct Distinct<K> {
    keys: Vec<K>,
    counts: Vec<u64>,
    pending: Vec<K>,
    limit: usize,
}

impl<K: Copy + Ord> Distinct<K> {
    /// An empty list of at most `limit` distinct keys.
    pub(super) fn new(limit: usize) -> Self {
        Self { keys: Vec::new(), counts: Vec::new(), pending: Vec::new(), limit }
    }

    /// Adds `keys`. Returns false once there are more distinct ones than the limit; nothing is lost by then.
    pub(super) fn extend(&mut self, keys: &[K]) -> bool {
        self.pending.extend_from_slice(keys);
        self.pending.len() < PENDING || self.settle()
    }

    /// Counts what is pending. Returns false once there are more distinct keys than the limit.
    pub(super) fn settle(&mut self) -> bool {
        self.pending.sort_unstable();
        let mut runs: Vec<(K, u64)> = Vec::new();
        for run in self.pending.chunk_by(|a, b| a == b) {
            runs.push((run[0], run.len() as u64));
        }
        self.pending.clear();
        self.merge_runs(&runs);
        self.keys.len() <= self.limit
    }

    /// Adds everything in `other`. Returns false once there are more distinct keys than the limit.
    pub(super) fn merge(&mut self, mut other: Self) -> bool {
        other.settle();
        let runs: Vec<(K, u64)> = other.keys.into_iter().zip(other.counts).collect();
        self.merge_runs(&runs);
        self.settle()
    }

    /// The keys in ascending order, each with its count.
    pub(super) fn into_counts(mut self) -> impl Iterator<Item = (K, u64)> {
        self.settle();
        self.keys.into_iter().zip(self.counts)
    }

    fn merge_runs(&mut self, runs: &[(K, u64)]) {
        let (keys, counts) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.counts));
        self.keys.reserve(keys.len() + runs.len());
        self.counts.reserve(keys.len() + runs.len());
        let mut old = keys.into_iter().zip(counts).peekable();
        let mut new = runs.iter().copied().peekable();
        loop {
            let (key, count) = match (old.peek(), new.peek()) {
                (Some(a), Some(b)) if a.0 == b.0 => (a.0, a.1 + b.1),
                (Some(a), Some(b)) if a.0 < b.0 => *a,
                (Some(a), None) => *a,
                (_, Some(b)) => *b,
                (None, None) => break,
            };
            old.next_if(|a| a.0 == key);
            new.next_if(|b| b.0 == key);
            self.keys.push(key);
            self.counts.push(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_over_several_batches() {
        let mut distinct = Distinct::new(4);
        assert!(distinct.extend(&[5u32, 1, 5]));
        assert!(distinct.settle());
        let mut other = Distinct::new(4);
        assert!(other.extend(&[1, 9]));
        assert!(distinct.merge(other));
        assert!(distinct.extend(&[9]));
        assert_eq!(distinct.into_counts().collect::<Vec<_>>(), [(1, 2), (5, 2), (9, 2)]);
    }

    #[test]
    fn one_key_too_many_is_reported_and_kept() {
        let mut distinct = Distinct::new(2);
        distinct.extend(&[1u32, 2, 3]);
        assert!(!distinct.settle());
        assert_eq!(distinct.into_counts().count(), 3);
    }
}
