//! BAdam: one layer at a time is stepped, by AdamW, and has moments only then. Which one is a function of the step. What
//! belongs to no layer stays as it is. From: Luo et al. 2024, and their `badam.BlockOptimizer`.

use luthier_model::Parameters;

use super::names::{layer, mix};
use super::{BadamSettings, BlockOrder};

/// The parameters of each layer that has some, by their numbers.
pub(super) fn blocks(parameters: &Parameters) -> Vec<Vec<usize>> {
    let mut found: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let Some(layer) = layer(&parameter.name) else { continue };
        match found.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, members)) => members.push(index),
            None => found.push((layer, vec![index])),
        }
    }
    found.sort_by_key(|(layer, _)| *layer);
    found.into_iter().map(|(_, members)| members).collect()
}

/// How many times the block has changed before step `step`, from 1. As in the reference the first block has one step less.
fn changes(settings: &BadamSettings, step: u32) -> u32 {
    settings.interval.map_or(0, |interval| step / interval)
}

/// The number of a step since the block changed, from 1.
pub(super) fn step_in_block(settings: &BadamSettings, step: u32) -> u32 {
    match (changes(settings, step), settings.interval) {
        (0, _) | (_, None) => step,
        (changes, Some(interval)) => step - changes * interval + 1,
    }
}

/// The block of step `step`, from 1.
pub(super) fn block(settings: &BadamSettings, count: usize, seed: u64, step: u32) -> usize {
    let count = count.max(1);
    let changes = changes(settings, step) as usize;
    match settings.order {
        BlockOrder::Fixed => settings.start.unwrap_or(0) % count,
        BlockOrder::Ascending => (settings.start.unwrap_or(0) + changes) % count,
        BlockOrder::Descending => {
            let start = settings.start.unwrap_or(count - 1) % count;
            (start + count - changes % count) % count
        }
        BlockOrder::Random => {
            // A start of its own is the first block only.
            match (settings.start, changes) {
                (Some(start), 0) => start % count,
                (Some(_), changes) => shuffled(count, seed, (changes - 1) / count)[(changes - 1) % count],
                (None, changes) => shuffled(count, seed, changes / count)[changes % count],
            }
        }
    }
}

/// The order of a round.
fn shuffled(count: usize, seed: u64, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for place in (1..count).rev() {
        let random = mix(mix(seed ^ mix(round as u64)) ^ place as u64);
        order.swap(place, (random % (place as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(order: BlockOrder, interval: u32, start: Option<usize>) -> BadamSettings {
        BadamSettings { start, order, interval: Some(interval) }
    }

    #[test]
    fn blocks_follow_one_another_as_in_the_reference() {
        let of = |settings: BadamSettings| {
            (1..=10).map(|step| (block(&settings, 3, 7, step), step_in_block(&settings, step))).collect::<Vec<_>>()
        };
        let up = of(settings(BlockOrder::Ascending, 3, None));
        assert_eq!(up, [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (0, 1), (0, 2)]);
        let down = of(settings(BlockOrder::Descending, 3, Some(1)));
        assert_eq!(down.iter().map(|(block, _)| *block).collect::<Vec<_>>(), [1, 1, 0, 0, 0, 2, 2, 2, 1, 1]);
        let fixed = of(BadamSettings { start: Some(2), order: BlockOrder::Fixed, interval: None });
        assert_eq!(fixed.last(), Some(&(2, 10)));
        let mut random: Vec<_> =
            (0..3).map(|change| block(&settings(BlockOrder::Random, 1, None), 3, 7, change)).collect();
        random.sort_unstable();
        assert_eq!(random, [0, 1, 2], "each once a round");
    }
}
