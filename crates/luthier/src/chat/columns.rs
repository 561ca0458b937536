//! Two texts side by side.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const BETWEEN: &str = " | ";
/// Narrower terminals show one text after the other.
const LEAST_WIDTH: usize = 80;

/// Whether two columns fit a terminal of this width.
pub(super) fn fit(width: usize) -> bool {
    width >= LEAST_WIDTH
}

/// Two texts with their titles in columns of a page of `width`, each line ended.
pub(super) fn side_by_side(titles: [&str; 2], texts: [&str; 2], width: usize) -> String {
    let column = (width.saturating_sub(BETWEEN.len()) / 2).max(1);
    let [left, right] = [0, 1].map(|side| {
        let mut lines = vec![titles[side].to_owned(), "-".repeat(titles[side].width().min(column))];
        lines.extend(texts[side].lines().flat_map(|line| wrap(line, column)));
        lines
    });
    let mut page = String::new();
    for row in 0..left.len().max(right.len()) {
        let cell = |lines: &[String]| lines.get(row).cloned().unwrap_or_default();
        let (left, right) = (cell(&left), cell(&right));
        let padding = " ".repeat(column.saturating_sub(left.width()));
        page.push_str(format!("{left}{padding}{BETWEEN}{right}").trim_end());
        page.push('\n');
    }
    page
}

/// A line broken at blanks, and inside words that are wider than the column.
fn wrap(line: &str, column: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in line.split_inclusive(' ') {
        let width = word.trim_end().width();
        if used > 0 && used + width > column {
            lines.push(String::new());
            used = 0;
        }
        for character in word.chars() {
            let width = character.width().unwrap_or(0);
            if used + width > column && character != ' ' {
                lines.push(String::new());
                used = 0;
            }
            if let Some(last) = lines.last_mut() {
                last.push(character);
            }
            used += width;
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let page = side_by_side(["without", "with"], ["I am a model.\n\nYes.", "abcdefghijklmno pq"], 23);
        assert_eq!(
            page,
            "without    | with\n\
             -------    | ----\n\
             I am a     | abcdefghij\n\
             model.     | klmno pq\n\
             \u{20}          |\n\
             Yes.       |\n"
        );
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(wrap("日本語の文字", 7), ["日本語", "の文字"]);
        assert_eq!(wrap("", 7), [""]);
    }
}
