//! The order in which rows are trained: a pure function of the seed, the epoch and the number of rows.
//!
//! Row i of epoch e gets the key `mix(mix(mix(seed) ^ e) ^ i)`, where `mix` is the output function of SplitMix64
//! (Steele, Lea and Flood 2014) on its input plus the golden gamma; rows are trained by rising key, equal keys by rising
//! row. No state is carried: any epoch can be computed alone, by any number of threads, after any interruption.

/// The rows 0 to `rows`, each once, in the order of that epoch (counted from 0).
pub fn permutation(seed: u64, epoch: u64, rows: usize) -> Vec<usize> {
    let stream = mix(mix(seed) ^ epoch);
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by_cached_key(|row| (mix(stream ^ *row as u64), *row));
    order
}

/// Numbers below `below` without end, each drawn for itself; of a stream that no order uses. None where there is nothing to
/// draw.
pub(crate) fn draws(seed: u64, stream: u64, below: usize) -> impl Iterator<Item = usize> {
    uniform(seed, stream)
        .take_while(move |_| below > 0)
        .map(move |share| ((share * below as f64) as usize).min(below - 1))
}

/// Places in `shares` without end, each as often as its share says.
pub(crate) fn shares(seed: u64, stream: u64, shares: &[f64]) -> impl Iterator<Item = usize> {
    uniform(seed, stream).map(move |mut drawn| {
        drawn *= shares.iter().sum::<f64>();
        let found = shares.iter().position(|share| {
            drawn -= share;
            drawn < 0.0
        });
        found.or_else(|| shares.iter().rposition(|share| *share > 0.0)).unwrap_or(0)
    })
}

/// Numbers from 0 to below 1: the first 53 bits of the keys of rows behind every dataset.
fn uniform(seed: u64, stream: u64) -> impl Iterator<Item = f64> {
    let stream = mix(mix(seed) ^ stream);
    (0_u64..).map(move |index| (mix(stream ^ index ^ (1 << 63)) >> 11) as f64 / (1_u64 << 53) as f64)
}

/// As [`permutation`], with rows of like lengths near one another: transformers' `LengthGroupedSampler`. The order is cut
/// into some dozens of batches each, in which the longest come first; the longest of all is the very first, so that what
/// does not fit fails at once.
pub fn grouped_by_length(seed: u64, epoch: u64, lengths: &[usize], batch: usize) -> Vec<usize> {
    let mut order = permutation(seed, epoch, lengths.len());
    let batch = batch.max(1);
    let batches = (lengths.len() / (4 * batch)).clamp(1, 50);
    let group = batches * batch;
    for rows in order.chunks_mut(group) {
        rows.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
    }
    // Of equal ones the first, as Python finds it.
    let longest = (0..order.len()).step_by(group).rev().max_by_key(|&first| lengths[order[first]]);
    if let Some(longest) = longest {
        order.swap(0, longest);
    }
    order
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // The first outputs of SplitMix64 from state 0, as published with xoshiro by Vigna.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn every_row_comes_once_and_the_order_is_pinned() {
        let mut sorted = permutation(42, 3, 1000);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(permutation(42, 0, 8), [4, 3, 5, 0, 7, 6, 1, 2]); // computed with Python from the text above
        assert_ne!(permutation(42, 0, 8), permutation(42, 1, 8));
        assert_ne!(permutation(42, 0, 8), permutation(43, 0, 8));
        assert!(permutation(42, 0, 0).is_empty());
    }

    #[test]
    fn groups_are_those_of_transformers() {
        let lengths: Vec<usize> = (0..100).map(|row: usize| 1 + row * 37 % 41).collect();
        let order = grouped_by_length(42, 1, &lengths, 4);
        // min(100 / (4 * 4), 50) = 6 batches of 4 rows a group, of the same rows as without groups.
        let plain = permutation(42, 1, 100);
        let sorted = |rows: &[usize]| {
            let mut rows = rows.to_vec();
            rows.sort_unstable();
            rows
        };
        assert_eq!(lengths[order[0]], 41, "the longest of all comes first");
        for (group, (rows, of)) in order.chunks(24).zip(plain.chunks(24)).enumerate() {
            // The first rows of two groups have changed places.
            let shared = sorted(rows).iter().filter(|row| of.contains(row)).count();
            assert!(shared >= rows.len() - 1, "group {group}");
            assert!(rows[1..].is_sorted_by(|one, other| lengths[*one] >= lengths[*other]), "group {group}");
        }
        assert_eq!(sorted(&order), (0..100).collect::<Vec<_>>());
        assert!(grouped_by_length(42, 0, &[], 4).is_empty());
    }
}
