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
}
