//! `luthier data preview`: rows as training sees them, read by the same code, with what is trained of them shown in green
//! or in brackets; then what was cut or dropped, and how long the rows are. Nothing is written.

use std::fmt::Write;
use std::io::IsTerminal;

use luthier_data::{Example, Tokenized, Tokenizer};

use crate::config::TrainConfig;
use crate::model::Model;
use crate::rows;
use crate::settings::{Problem, words};
use crate::{ConfigArguments, Environment, eprint_line, fail, print_text};

/// What follows `luthier data preview`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "luthier data preview [--rows N | --row K] [--ids] [CONFIG] [key=value | --key value]...")]
pub(crate) struct Arguments {
    /// How many rows to show, from the first on [default: 3]
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// The one row to show, counted from 1
    #[arg(long, value_name = "K")]
    row: Option<usize>,
    /// Show the ids of the tokens too
    #[arg(long)]
    ids: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

/// Rows that are shown where nothing is said.
const ROWS: usize = 3;

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    // Options may stand behind the settings too.
    let mut words = arguments.config.words.clone();
    let count = words::take_count(&mut words, "rows").map_err(fail)?.or(arguments.rows);
    let row = words::take_count(&mut words, "row").map_err(fail)?.or(arguments.row);
    let ids = words::take_flag(&mut words, "ids") || arguments.ids;
    let mut config = TrainConfig::from_words(&words).map_err(fail)?;
    config.model.locate(&environment.hub)?;
    config.check_model_files().map_err(fail)?;
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let model = Model::of(&config)?;
    let read = rows::read(&model, config.stage, &config.data.datasets, &config.data)?;
    for note in &read.notes {
        eprint_line(&format!("note: {note}"));
    }
    let found = read.tokenized.examples.len();
    let shown = match (row, count) {
        (Some(row), _) if !(1..=found).contains(&row) => {
            return Err(fail(vec![Problem(format!("--row is {row}, but there are {found} rows"))]));
        }
        (Some(row), _) => row - 1..row,
        (None, count) => 0..count.unwrap_or(ROWS).min(found),
    };
    // Records that are tokens already can be shown as text where the model has a tokenizer.
    let tokenizer = match read.tokenizer {
        Some(tokenizer) => Some(tokenizer),
        None => model.tokenizer().ok(),
    };
    let colours = std::io::stdout().is_terminal() && !environment.no_color;
    let marks = if colours { Marks::Colours } else { Marks::Brackets };
    let mut page = String::new();
    for row in shown {
        let example = &read.tokenized.examples[row];
        let _ = writeln!(page, "{}", heading(&read.tokenized, &config.data.datasets, row));
        if let Some(tokenizer) = &tokenizer {
            let _ = writeln!(page, "{}", marks.show(&texts(example, tokenizer)?).trim_end_matches('\n'));
        }
        if ids || tokenizer.is_none() {
            let _ = writeln!(page, "ids: {}", marks.show(&numbers(example)));
        }
        page.push('\n');
    }
    let report = &read.tokenized.report;
    let _ = writeln!(page, "{} rows, {} tokens, {} of them trained", report.rows, report.tokens, report.trained_tokens);
    for loss in rows::losses(report, config.data.cutoff_len) {
        let _ = writeln!(page, "{loss}");
    }
    let lengths: Vec<usize> = read.tokenized.examples.iter().map(|example| example.ids.len()).collect();
    page.push_str(&histogram(&lengths));
    print_text(&page);
    Ok(())
}

/// `row 2 of 91 (identity record 2): 54 tokens, 21 trained`
fn heading(tokenized: &Tokenized, datasets: &[String], row: usize) -> String {
    let example = &tokenized.examples[row];
    let origin = tokenized.origins.get(row).copied().flatten();
    let origin = origin.and_then(|origin| Some((datasets.get(origin.dataset)?, origin.record + 1)));
    let origin = origin.map_or_else(String::new, |(dataset, record)| format!(" ({dataset} record {record})"));
    let trained = example.trained_count();
    format!("row {} of {}{origin}: {} tokens, {trained} trained", row + 1, tokenized.examples.len(), example.ids.len())
}

/// Something of a row that is shown in one way.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    text: String,
    trained: bool,
    /// Whether it is a special token.
    special: bool,
}

/// Puts a part at the end, into the last one where both are shown alike.
fn push(parts: &mut Vec<Part>, part: Part) {
    match parts.last_mut() {
        Some(last) if (last.trained, last.special) == (part.trained, part.special) => last.text.push_str(&part.text),
        _ => parts.push(part),
    }
}

/// The text of a row, token by token, with what a terminal would obey made visible.
fn texts(example: &Example, tokenizer: &Tokenizer) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut stream = tokenizer.stream();
    let mut last = (false, false);
    for (&id, &trained) in example.ids.iter().zip(&example.trained) {
        let text = stream.push(id)?;
        last = (trained, tokenizer.is_special(id));
        if !text.is_empty() {
            push(&mut parts, Part { text: visible(&text), trained, special: last.1 });
        }
    }
    let text = stream.finish()?;
    if !text.is_empty() {
        push(&mut parts, Part { text: visible(&text), trained: last.0, special: last.1 });
    }
    Ok(parts)
}

fn numbers(example: &Example) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (id, &trained) in example.ids.iter().zip(&example.trained) {
        let blank = if parts.last().is_some_and(|last| last.trained == trained) { " " } else { "" };
        push(&mut parts, Part { text: format!("{blank}{id}"), trained, special: false });
    }
    parts
}

fn visible(text: &str) -> String {
    let hides = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    text.chars().map(|letter| if hides(letter) { letter.escape_unicode().to_string() } else { letter.into() }).collect()
}

/// How it is shown which parts are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Marks {
    /// Green; the others dim; special tokens bold or cyan.
    Colours,
    /// `⟦trained⟧`
    Brackets,
}

impl Marks {
    fn show(self, parts: &[Part]) -> String {
        let mut shown = String::new();
        for (index, Part { text, trained, special }) in parts.iter().enumerate() {
            let neighbour = |at: Option<usize>| at.and_then(|at| parts.get(at)).is_some_and(|part| part.trained);
            match self {
                Self::Colours => {
                    let code = match (trained, special) {
                        (true, false) => "32",
                        (true, true) => "1;32",
                        (false, false) => "2",
                        (false, true) => "2;36",
                    };
                    let _ = write!(shown, "\x1b[{code}m{text}\x1b[0m");
                }
                Self::Brackets if *trained => {
                    let begin = if neighbour(index.checked_sub(1)) { "" } else { "⟦" };
                    let end = if neighbour(index.checked_add(1)) { "" } else { "⟧" };
                    let _ = write!(shown, "{begin}{text}{end}");
                }
                Self::Brackets => shown.push_str(text),
            }
        }
        shown
    }
}

/// How many rows have which number of tokens: at most about ten lines of equal width.
fn histogram(lengths: &[usize]) -> String {
    const LINES: usize = 10;
    const WIDTH: usize = 40;
    let (Some(&longest), Some(&shortest)) = (lengths.iter().max(), lengths.iter().min()) else { return String::new() };
    let least = (longest - shortest + 1).div_ceil(LINES);
    // The next of 1, 2, 5, 10, 20, 50, ...
    let mut step = 1;
    for factor in [2, 5, 10].into_iter().cycle() {
        if step >= least {
            break;
        }
        let decade = 10_usize.pow(step.ilog10());
        step = decade * factor;
    }
    let line = |length: usize| length.saturating_sub(1) / step;
    let first = line(shortest);
    let mut counts = vec![0_usize; line(longest) - first + 1];
    for &length in lengths {
        counts[line(length) - first] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let digits = longest.next_multiple_of(step).to_string().len();
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
    let mut page = format!("tokens of a row: {shortest} to {longest}, {mean:.0} in the mean\n");
    for (index, count) in counts.iter().enumerate() {
        let bar = "#".repeat((count * WIDTH).div_ceil(most));
        let (from, to) = ((first + index) * step + 1, (first + index + 1) * step);
        let _ = writeln!(page, "  {from:>digits$}-{to:<digits$}  {bar:<WIDTH$}  {count}");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str, trained: bool, special: bool) -> Part {
        Part { text: text.to_owned(), trained, special }
    }

    #[test]
    fn marks() {
        let parts =
            [part("<s>", false, true), part("hi", false, false), part("yes", true, false), part("</s>", true, true)];
        assert_eq!(Marks::Brackets.show(&parts), "<s>hi⟦yes</s>⟧");
        assert_eq!(
            Marks::Colours.show(&parts),
            "\x1b[2;36m<s>\x1b[0m\x1b[2mhi\x1b[0m\x1b[32myes\x1b[0m\x1b[1;32m</s>\x1b[0m"
        );
        let example = Example { ids: vec![1, 20, 3, 4], trained: vec![false, true, true, false] };
        assert_eq!(Marks::Brackets.show(&numbers(&example)), "1⟦20 3⟧4");
    }

    #[test]
    fn what_a_terminal_would_obey_is_visible() {
        assert_eq!(visible("a\x1b[31m\r\n\tb\u{9b}"), "a\\u{1b}[31m\\u{d}\n\tb\\u{9b}");
    }

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
