//! How long rows are: at most about ten groups of equal, round width, as lines of a terminal or as bars of a page.

use std::fmt::Write;

const GROUPS: usize = 10;

/// Rows with a number of tokens within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Group {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) rows: usize,
}

/// How many rows have which number of tokens.
pub(super) fn groups(lengths: &[usize]) -> Vec<Group> {
    let (Some(&longest), Some(&shortest)) = (lengths.iter().max(), lengths.iter().min()) else { return Vec::new() };
    let least = (longest - shortest + 1).div_ceil(GROUPS);
    // The next of 1, 2, 5, 10, 20, 50, ...
    let mut step = 1;
    for factor in [2, 5, 10].into_iter().cycle() {
        if step >= least {
            break;
        }
        let decade = 10_usize.pow(step.ilog10());
        step = decade * factor;
    }
    let group = |length: usize| length.saturating_sub(1) / step;
    let first = group(shortest);
    let bounds = |index: usize| Group { from: index * step + 1, to: (index + 1) * step, rows: 0 };
    let mut groups: Vec<Group> = (first..=group(longest)).map(bounds).collect();
    lengths.iter().for_each(|&length| groups[group(length) - first].rows += 1);
    groups
}

/// The same as lines.
pub(super) fn lines(lengths: &[usize]) -> String {
    const WIDTH: usize = 40;
    let (Some(&longest), Some(&shortest)) = (lengths.iter().max(), lengths.iter().min()) else { return String::new() };
    let groups = groups(lengths);
    let most = groups.iter().map(|group| group.rows).max().unwrap_or(1).max(1);
    let digits = groups.last().map_or(1, |group| group.to.to_string().len());
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    let mut page = format!("tokens of a row: {shortest} to {longest}, {mean:.0} in the mean\n");
    for Group { from, to, rows } in groups {
        let bar = "#".repeat((rows * WIDTH).div_ceil(most));
        let _ = writeln!(page, "  {from:>digits$}-{to:<digits$}  {bar:<WIDTH$}  {rows}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::lines as histogram;

    #[test]
    fn lengths_in_round_steps() {
        let lengths: Vec<usize> = (1..=23).collect();
        let page = histogram(&lengths);
        let bar = |count: usize, full: usize| "#".repeat((count * 40).div_ceil(full));
        assert_eq!(page.lines().next(), Some("tokens of a row: 1 to 23, 12 in the mean"));
        assert_eq!(page.lines().nth(1), Some(format!("   1-5   {}  5", bar(5, 5)).as_str()));
        assert_eq!(page.lines().last(), Some(format!("  21-25  {:<40}  3", bar(3, 5)).as_str()));
        assert_eq!(page.lines().count(), 6);
        assert_eq!(histogram(&[7]).lines().nth(1), Some(format!("  7-7  {}  1", "#".repeat(40)).as_str()));
        assert_eq!(histogram(&[]), "");
        assert!(histogram(&[1, 2048]).lines().count() <= 12);
    }
}
