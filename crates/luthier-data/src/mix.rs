//! Several datasets put together as Hugging Face's `interleave_datasets` does: by turns, or drawn with given shares. Ours is a
//! pure function of seed and lengths, so that a run can be repeated.

use crate::dataset::Dataset;
use crate::order::shares;
use crate::report::Origin;

/// When an interleaving ends: LLaMA-Factory's `mix_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interleave {
    /// With the first dataset that is used up: `interleave_under`, Hugging Face's `first_exhausted`.
    Under,
    /// When every dataset was used up; shorter ones begin anew: `interleave_over`, `all_exhausted`.
    Over,
    /// When every record was used once: `interleave_once`, `all_exhausted_without_replacement`.
    Once,
}

/// One dataset of several, by turns, or drawn with `shares` (one for each, together 1).
pub fn interleave(datasets: Vec<Dataset>, until: Interleave, shares: Option<&[f64]>, seed: u64) -> Dataset {
    let lengths: Vec<usize> = datasets.iter().map(|dataset| dataset.records.len()).collect();
    let order = order(&lengths, until, shares, seed);
    let mut mixed = Dataset {
        name: datasets.iter().map(|dataset| dataset.name.as_str()).collect::<Vec<_>>().join(","),
        names: datasets.iter().map(|dataset| dataset.name.clone()).collect(),
        ..Dataset::default()
    };
    for (dataset, index) in order {
        mixed.records.push(datasets[dataset].records[index].clone());
        let record = datasets[dataset].origins.get(index).map_or(index, |origin| origin.record);
        mixed.origins.push(Origin { dataset, record });
    }
    mixed
}

/// Which record of which dataset comes when.
fn order(lengths: &[usize], until: Interleave, wanted: Option<&[f64]>, seed: u64) -> Vec<(usize, usize)> {
    if lengths.contains(&0) {
        return Vec::new();
    }
    let mut used = vec![0_usize; lengths.len()];
    let mut order = Vec::new();
    let ended = |used: &[usize]| {
        let mut full = used.iter().zip(lengths).map(|(used, length)| used >= length);
        if until == Interleave::Under { full.any(|full| full) } else { full.all(|full| full) }
    };
    let mut take = |used: &mut Vec<usize>, dataset: usize| {
        if until != Interleave::Once || used[dataset] < lengths[dataset] {
            order.push((dataset, used[dataset] % lengths[dataset]));
            used[dataset] += 1;
        }
    };
    match wanted {
        // A round is never left half done: with the shortest, or with the longest, all end.
        None => {
            while !ended(&used) {
                (0..lengths.len()).for_each(|dataset| take(&mut used, dataset));
            }
        }
        Some(wanted) => {
            for dataset in shares(seed, u64::MAX - 2, wanted) {
                if ended(&used) {
                    break;
                }
                take(&mut used, dataset);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lengths: &[usize], until: Interleave) -> String {
        let letter = |(dataset, index): (usize, usize)| format!("{}{index}", ["a", "b", "c"][dataset]);
        order(lengths, until, None, 0).into_iter().map(letter).collect::<Vec<_>>().join(" ")
    }

    /// Computed with `interleave_datasets` of Hugging Face datasets 5.2.0 on the same lengths.
    #[test]
    fn by_turns_as_hugging_face_does() {
        assert_eq!(shown(&[2, 4], Interleave::Under), "a0 b0 a1 b1");
        assert_eq!(shown(&[2, 4], Interleave::Over), "a0 b0 a1 b1 a0 b2 a1 b3");
        assert_eq!(shown(&[1, 3], Interleave::Once), "a0 b0 b1 b2");
        assert_eq!(shown(&[0, 3], Interleave::Over), "");
    }

    #[test]
    fn shares_are_kept_and_the_end_is_the_same_rule() {
        let under = order(&[1000, 100_000], Interleave::Under, Some(&[0.25, 0.75]), 7);
        let first = under.iter().filter(|(dataset, _)| *dataset == 0).count();
        assert_eq!(first, 1000);
        assert_eq!(under.last(), Some(&(0, 999)));
        assert!((3700..4300).contains(&under.len()), "{}", under.len());
        let once = order(&[50, 200], Interleave::Once, Some(&[0.5, 0.5]), 7);
        let mut sorted = once.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).map(|i| (0, i)).chain((0..200).map(|i| (1, i))).collect::<Vec<_>>());
        assert_ne!(once, order(&[50, 200], Interleave::Once, Some(&[0.5, 0.5]), 8));
    }

    #[test]
    fn a_dataset_without_a_share_does_not_go_on_for_ever() {
        assert_eq!(order(&[2, 2], Interleave::Under, Some(&[1.0, 0.0]), 7).len(), 2);
    }
}
