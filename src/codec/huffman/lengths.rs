//! Optimal code lengths under a limit: the package-merge algorithm.
//!
//! # Source
//! Larmore, Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", JACM 37(3), 1990.

use super::Lengths;

/// The lengths of an optimal prefix code for symbols that occur `counts` times, none longer than `limit` bits. Symbols
/// that do not occur get no code word; a symbol that is alone gets one of no bits.
///
/// # Panics
/// If `limit` bits cannot tell the symbols apart.
pub(in crate::codec) fn code_lengths(counts: &[u64], limit: u32) -> Lengths {
    let mut used: Vec<(u64, usize)> =
        counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(|(symbol, &count)| (count, symbol)).collect();
    assert!(used.len() as u64 <= 1 << limit, "{} symbols in {limit} bits", used.len());
    used.sort_unstable();
    let weights: Vec<u64> = used.iter().map(|&(count, _)| count).collect();
    let mut lengths = vec![None; counts.len()];
    for ((_, symbol), length) in used.into_iter().zip(package_merge(&weights, limit)) {
        lengths[symbol] = Some(length);
    }
    lengths
}

/// The code lengths for `weights`, which rise.
///
/// A code of n words is a choice of 2n - 2 coins: a word of length l takes one coin of each face value 1/2 .. 1/2^l, at
/// the price of its weight. From the smallest face value up, coins are merged with packages of two coins of the value
/// below; the cheapest 2n - 2 items of the last merge are the choice.
fn package_merge(weights: &[u64], limit: u32) -> Vec<u8> {
    let mut lengths = vec![0; weights.len()];
    if weights.len() < 2 {
        return lengths;
    }
    let mut packages: Vec<u64> = Vec::new();
    let mut rounds = Vec::new();
    for _ in 0..limit {
        let (items, is_coin) = merge(weights, &packages);
        packages = items.chunks_exact(2).map(|pair| pair[0] + pair[1]).collect();
        rounds.push(is_coin);
    }
    let mut chosen = 2 * weights.len() - 2;
    for is_coin in rounds.into_iter().rev() {
        let coins = is_coin[..chosen].iter().filter(|&&coin| coin).count();
        lengths[..coins].iter_mut().for_each(|length| *length += 1);
        chosen = 2 * (chosen - coins);
    }
    lengths
}

/// Merges two rising lists, the first first where equal, and says of each item if it is from the first.
fn merge(coins: &[u64], packages: &[u64]) -> (Vec<u64>, Vec<bool>) {
    let (mut coins, mut packages) = (coins.iter().peekable(), packages.iter().peekable());
    let mut items = Vec::with_capacity(coins.len() + packages.len());
    let mut is_coin = Vec::with_capacity(items.capacity());
    while let Some(take_coin) = match (coins.peek(), packages.peek()) {
        (Some(coin), Some(package)) => Some(coin <= package),
        (Some(_), None) => Some(true),
        (None, Some(_)) => Some(false),
        (None, None) => None,
    } {
        items.extend(if take_coin { coins.next() } else { packages.next() });
        is_coin.push(take_coin);
    }
    (items, is_coin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(counts: &[u64], limit: u32) -> Vec<u8> {
        code_lengths(counts, limit).into_iter().map(|length| length.unwrap_or(u8::MAX)).collect()
    }

    #[test]
    fn small_codes_are_those_found_by_hand() {
        assert_eq!(lengths(&[1, 1, 2, 4], 32), [3, 3, 2, 1]);
        assert_eq!(lengths(&[5, 5, 5, 5], 32), [2, 2, 2, 2]);
        assert_eq!(lengths(&[0, 7, 0, 1], 32), [255, 1, 255, 1]);
        assert_eq!(lengths(&[0, 9], 32), [255, 0]);
        assert_eq!(lengths(&[0, 0], 32), [255, 255]);
        // Unlimited 4, 4, 3, 2, 1; within 3 bits 2 + 2 + 3 + 3 + ... costs least as below.
        assert_eq!(lengths(&[1, 1, 2, 4, 8], 3), [3, 3, 3, 3, 1]);
    }

    /// The cost of an unlimited Huffman code: the sum of all inner nodes' weights.
    fn huffman_cost(counts: &[u64]) -> u64 {
        let mut heap: std::collections::BinaryHeap<_> = counts.iter().map(|&c| std::cmp::Reverse(c)).collect();
        let mut cost = 0;
        while let (Some(a), Some(b)) = (heap.pop(), heap.pop()) {
            cost += a.0 + b.0;
            heap.push(std::cmp::Reverse(a.0 + b.0));
        }
        cost
    }

    #[test]
    fn without_pressure_from_the_limit_the_cost_is_huffmans() {
        let mut state = 1u64;
        for symbols in [2usize, 3, 17, 256, 1000] {
            let counts: Vec<u64> = (0..symbols)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    1 + (state >> 33) % 5000
                })
                .collect();
            let cost: u64 = lengths(&counts, 32).iter().zip(&counts).map(|(&l, c)| u64::from(l) * c).sum();
            assert_eq!(cost, huffman_cost(&counts), "{symbols} symbols");
        }
    }

    #[test]
    fn fibonacci_counts_stay_within_the_limit() {
        let mut counts = vec![1u64, 1];
        while counts.len() < 45 {
            counts.push(counts[counts.len() - 1] + counts[counts.len() - 2]);
        }
        let lengths = lengths(&counts, 32);
        assert_eq!(lengths.iter().max(), Some(&32));
        assert_eq!(lengths.iter().map(|&l| 1u64 << (32 - l)).sum::<u64>(), 1 << 32);
    }

    #[test]
    fn a_full_alphabet_of_equal_counts_takes_sixteen_bits() {
        assert!(code_lengths(&vec![3; 1 << 16], 32).iter().all(|&l| l == Some(16)));
    }
}
