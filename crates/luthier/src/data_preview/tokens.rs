//! The tokens of a row as they are shown: their text, whether they are trained, and who wrote them.

use std::fmt::Write;

use luthier_data::{Example, Role, RoleSpan, Tokenizer};

/// A token as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) id: u32,
    /// What it adds to the text: nothing in the middle of a character.
    pub(super) text: String,
    /// How much it counts in the loss; 0 where it is not trained.
    pub(super) weight: f32,
    /// `None` for what the template writes, and where nothing is known.
    pub(super) role: Option<Role>,
    /// Whether it is a special token.
    pub(super) special: bool,
}

/// The tokens of a row. Without a tokenizer they have no text, without spans no roles.
pub(super) fn tokens(
    example: &Example,
    spans: &[RoleSpan],
    tokenizer: Option<&Tokenizer>,
) -> anyhow::Result<Vec<Shown>> {
    let mut stream = tokenizer.map(Tokenizer::stream);
    let mut shown = Vec::with_capacity(example.ids.len());
    for (index, &id) in example.ids.iter().enumerate() {
        let span = spans.partition_point(|span| span.end <= index);
        shown.push(Shown {
            id,
            text: stream.as_mut().map(|stream| stream.push(id)).transpose()?.unwrap_or_default(),
            weight: example.weight(index),
            role: spans.get(span).and_then(|span| span.role),
            special: tokenizer.is_some_and(|tokenizer| tokenizer.is_special(id)),
        });
    }
    if let (Some(stream), Some(last)) = (stream, shown.last_mut()) {
        last.text.push_str(&stream.finish()?);
    }
    Ok(shown)
}

/// A weight as it was written: 0.1, not the nearest number of 32 bits in the digits of 64.
pub(super) fn decimal(weight: f32) -> f64 {
    weight.to_string().parse().unwrap_or(f64::from(weight))
}

/// The name of a role; what no message wrote is the template's.
pub(super) fn role_name(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::System) => "system",
        Some(Role::User) => "user",
        Some(Role::Assistant) => "assistant",
        Some(Role::Tool) => "tool",
        None => "template",
    }
}

/// Who wrote the row, in order: `template 3, user 5, template 4, assistant 8`.
pub(super) fn who(tokens: &[Shown]) -> String {
    let runs = tokens.chunk_by(|one, other| one.role == other.role);
    let runs: Vec<String> = runs.map(|run| format!("{} {}", role_name(run[0].role), run.len())).collect();
    runs.join(", ")
}

/// Something of a row that is shown in one way.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    text: String,
    weight: f32,
    special: bool,
}

/// How it is shown which parts are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Marks {
    /// Green; with a weight other than 1 yellow; the others dim; special tokens bold or cyan.
    Colours,
    /// `⟦trained⟧`; with a weight other than 1 `⟦trained⟧×0.5`.
    Brackets,
}

impl Marks {
    /// The text of a row, with what a terminal would obey made visible.
    pub(super) fn text(self, tokens: &[Shown]) -> String {
        let parts = tokens.iter().filter(|token| !token.text.is_empty());
        self.show(parts.map(|token| Part { text: visible(&token.text), weight: token.weight, special: token.special }))
    }

    /// Its ids.
    pub(super) fn ids(self, tokens: &[Shown]) -> String {
        let mut last = None;
        self.show(tokens.iter().map(|token| {
            let blank = if last.replace(token.weight) == Some(token.weight) { " " } else { "" };
            Part { text: format!("{blank}{}", token.id), weight: token.weight, special: false }
        }))
    }

    fn show(self, parts: impl Iterator<Item = Part>) -> String {
        let mut runs: Vec<Vec<Part>> = Vec::new();
        for part in parts {
            match runs.last_mut().filter(|run| run.last().is_some_and(|last| last.weight == part.weight)) {
                Some(run) => match run.last_mut().filter(|last| last.special == part.special) {
                    Some(last) => last.text.push_str(&part.text),
                    None => run.push(part),
                },
                None => runs.push(vec![part]),
            }
        }
        let mut shown = String::new();
        for run in runs {
            let weight = run.first().map_or(0.0, |part| part.weight);
            let times = if weight == 0.0 || weight == 1.0 { String::new() } else { format!("×{weight}") };
            match self {
                Self::Colours => {
                    for Part { text, special, .. } in &run {
                        let colour = if weight == 1.0 { "32" } else { "33" };
                        let code = match (weight > 0.0, special) {
                            (true, false) => colour.to_owned(),
                            (true, true) => format!("1;{colour}"),
                            (false, false) => "2".to_owned(),
                            (false, true) => "2;36".to_owned(),
                        };
                        let _ = write!(shown, "\x1b[{code}m{text}\x1b[0m");
                    }
                    shown.push_str(&times);
                }
                Self::Brackets => {
                    let text: String = run.iter().map(|part| part.text.as_str()).collect();
                    shown += &if weight > 0.0 { format!("⟦{text}⟧{times}") } else { text };
                }
            }
        }
        shown
    }
}

fn visible(text: &str) -> String {
    let hides = |letter: char| letter.is_control() && letter != '\n' && letter != '\t';
    text.chars().map(|letter| if hides(letter) { letter.escape_unicode().to_string() } else { letter.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, text: &str, weight: f32, special: bool) -> Shown {
        Shown { id, text: text.to_owned(), weight, role: None, special }
    }

    #[test]
    fn marks() {
        let tokens = [
            token(1, "<s>", 0.0, true),
            token(20, "h", 0.0, false),
            token(3, "i", 0.0, false),
            token(4, "yes", 1.0, false),
            token(5, "</s>", 1.0, true),
            token(6, "half", 0.5, false),
        ];
        assert_eq!(Marks::Brackets.text(&tokens), "<s>hi⟦yes</s>⟧⟦half⟧×0.5");
        assert_eq!(
            Marks::Colours.text(&tokens),
            "\x1b[2;36m<s>\x1b[0m\x1b[2mhi\x1b[0m\x1b[32myes\x1b[0m\x1b[1;32m</s>\x1b[0m\x1b[33mhalf\x1b[0m×0.5"
        );
        assert_eq!(Marks::Brackets.ids(&tokens), "1 20 3⟦4 5⟧⟦6⟧×0.5");
    }

    #[test]
    fn what_a_terminal_would_obey_is_visible() {
        assert_eq!(visible("a\x1b[31m\r\n\tb\u{9b}"), "a\\u{1b}[31m\\u{d}\n\tb\\u{9b}");
    }

    #[test]
    fn weights_are_written_as_they_were_given() {
        for weight in [0.1, 1.0, 0.0, 0.333, 1e-6, 250_000.0] {
            assert_eq!(decimal(weight as f32), weight);
        }
    }

    #[test]
    fn who_wrote_what_is_told_in_order() {
        let example = Example::new(vec![7, 8, 9, 10], vec![false, false, true, true]);
        let spans = [RoleSpan { end: 1, role: Some(Role::User) }, RoleSpan { end: 4, role: Some(Role::Assistant) }];
        assert_eq!(who(&tokens(&example, &spans, None).expect("shown")), "user 1, assistant 3");
        assert_eq!(who(&tokens(&example, &spans[..1], None).expect("shown")), "user 1, template 3");
    }
}
