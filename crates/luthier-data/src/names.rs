//! The known name nearest to one that is not, for messages.

/// The nearest of the names: at most a third of the letters differ.
pub(crate) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let wanted = name.to_lowercase().replace(['-', '.', ' '], "_");
    let distance = |known: &&&'static str| (edits(&wanted, known), known.len());
    known.iter().min_by_key(distance).copied().filter(|found| edits(&wanted, found) <= 1 + wanted.chars().count() / 3)
}

/// The fewest letters to insert, remove or replace.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name() {
        let known = ["chatml", "llama3", "qwen3", "qwen3_nothink"];
        assert_eq!(nearest("chatmll", &known), Some("chatml"));
        assert_eq!(nearest("Llama-3", &known), Some("llama3"));
        assert_eq!(nearest("qwen3-no-think", &known), Some("qwen3_nothink"));
        assert_eq!(nearest("something", &known), None);
    }
}
