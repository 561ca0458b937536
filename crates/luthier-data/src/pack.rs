//! Packing: several examples into one row, each into the first row that has room for it, the longest first. From: Johnson
//! 1973 (first fit decreasing), which needs at most 11/9 of the fewest rows that are possible, and on real lengths hardly
//! more than them. A tree over the rows finds the first with room, so that a million examples take O(n log n).

/// Rows of several examples.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bins {
    /// The examples of all rows, row after row, each row's in rising order.
    members: Vec<usize>,
    /// Where each row's examples end.
    ends: Vec<usize>,
}

impl Bins {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The examples of a row.
    pub fn row(&self, row: usize) -> &[usize] {
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.members[begin..self.ends[row]]
    }
}

/// Puts examples of these lengths into rows of at most `room`; a longer one has a row of its own. `order` has each example
/// once, and of equal lengths those that it has first are placed first: a random one keeps neighbours of a dataset out of
/// the same row. Rows are numbered by their first example.
pub fn first_fit_decreasing(lengths: &[usize], room: usize, order: &[usize]) -> Bins {
    let mut by_length: Vec<usize> = order.to_vec();
    by_length.sort_by_key(|&example| std::cmp::Reverse(lengths[example]));
    // A tree of the most room that any row below a node has; rows that nothing is in yet have all of it.
    let leaves = lengths.len().next_power_of_two();
    let mut most_room = vec![room; 2 * leaves];
    let mut row_of = vec![0; lengths.len()];
    let mut opened = 0;
    for example in by_length {
        let length = lengths[example].min(room);
        let mut node = 1;
        while node < leaves {
            node = 2 * node + usize::from(most_room[2 * node] < length);
        }
        most_room[node] -= length;
        row_of[example] = node - leaves;
        opened = opened.max(node - leaves + 1);
        while node > 1 {
            node /= 2;
            most_room[node] = most_room[2 * node].max(most_room[2 * node + 1]);
        }
    }
    // Numbered anew, in the order of their first examples; then counted out.
    let mut numbers = vec![usize::MAX; opened];
    let mut ends: Vec<usize> = Vec::with_capacity(opened);
    for row in &mut row_of {
        if numbers[*row] == usize::MAX {
            numbers[*row] = ends.len();
            ends.push(0);
        }
        *row = numbers[*row];
        ends[*row] += 1;
    }
    let mut next = 0;
    for end in &mut ends {
        next += std::mem::replace(end, next);
    }
    let mut members = vec![0; lengths.len()];
    for (example, row) in row_of.iter().enumerate() {
        members[ends[*row]] = example;
        ends[*row] += 1;
    }
    Bins { members, ends }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permutation;

    fn rows(lengths: &[usize], room: usize, order: &[usize]) -> Vec<Vec<usize>> {
        let bins = first_fit_decreasing(lengths, room, order);
        (0..bins.len()).map(|row| bins.row(row).to_vec()).collect()
    }

    /// As the definition says it, row by row.
    fn plain(lengths: &[usize], room: usize, order: &[usize]) -> Vec<Vec<usize>> {
        let mut sorted = order.to_vec();
        sorted.sort_by_key(|&example| std::cmp::Reverse(lengths[example]));
        let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
        for example in sorted {
            let length = lengths[example].min(room);
            match rows.iter_mut().find(|(used, _)| used + length <= room) {
                Some((used, row)) => {
                    *used += length;
                    row.push(example);
                }
                None => rows.push((length, vec![example])),
            }
        }
        let mut rows: Vec<Vec<usize>> = rows.into_iter().map(|(_, row)| row).collect();
        rows.iter_mut().for_each(|row| row.sort_unstable());
        rows.sort_unstable();
        rows
    }

    #[test]
    fn the_longest_are_placed_first_each_into_the_first_row_with_room() {
        assert_eq!(rows(&[3, 7, 5, 5, 2, 9], 10, &[0, 1, 2, 3, 4, 5]), [vec![0, 1], vec![2, 3], vec![4], vec![5]]);
        assert_eq!(rows(&[5, 5, 5, 5], 10, &[3, 0, 2, 1]), [vec![0, 3], vec![1, 2]], "equal ones as the order says");
        assert_eq!(rows(&[12, 3], 10, &[0, 1]), [vec![0], vec![1]], "a longer one is alone");
        assert_eq!(rows(&[], 10, &[]), Vec::<Vec<usize>>::new());
        assert_eq!(rows(&[0, 4], 4, &[0, 1]), [vec![0, 1]]);
    }

    #[test]
    fn the_tree_finds_what_a_plain_walk_finds() {
        for seed in 0..40 {
            let count = (seed as usize * 37) % 300 + 1;
            let lengths: Vec<usize> =
                permutation(seed, 1, count).into_iter().map(|number| 1 + number * number % 97).collect();
            let order = permutation(seed, 0, count);
            assert_eq!(rows(&lengths, 100, &order), plain(&lengths, 100, &order), "seed {seed}");
        }
    }

    #[test]
    fn a_million_examples_fill_their_rows() {
        let lengths: Vec<usize> = (0..1_000_000).map(|row: usize| 20 + row * 7919 % 600).collect();
        let bins = first_fit_decreasing(&lengths, 2048, &permutation(42, 0, lengths.len()));
        let mut seen = vec![false; lengths.len()];
        for row in 0..bins.len() {
            assert!(bins.row(row).iter().map(|&example| lengths[example]).sum::<usize>() <= 2048);
            bins.row(row).iter().for_each(|&example| assert!(!std::mem::replace(&mut seen[example], true)));
        }
        assert!(seen.iter().all(|seen| *seen));
        let tokens: usize = lengths.iter().sum();
        assert!(tokens as f64 / (bins.len() * 2048) as f64 > 0.99, "{} rows for {tokens} tokens", bins.len());
    }
}
