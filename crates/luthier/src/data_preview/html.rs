//! The preview as one page that a browser shows without anything from elsewhere. The rows lie in it as JSON, which a
//! script turns into text: nothing of a dataset is ever read as HTML.

use std::ops::Range;

use serde_json::{Value, json};

use super::tokens::{Shown, decimal, role_name};
use super::{Preview, histogram};
use crate::wording::thousands;

/// Everything but the data, whose place is marked.
const PAGE: &str = include_str!("page.html");
const PLACE: &str = "\"DATA\"";

/// The page with these rows.
pub(super) fn page(preview: &Preview, rows: Range<usize>) -> anyhow::Result<String> {
    let found = preview.read.tokenized.examples.len();
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        let origin = preview.origin(row).map(|(dataset, record)| format!("{dataset} record {record}"));
        shown.push(row_of(row, origin, &preview.tokens(row)?));
    }
    let counts = preview.counts().into_iter().map(|(name, report)| {
        json!({ "name": name, "rows": report.rows, "tokens": report.tokens, "trained": report.trained_tokens })
    });
    let report = &preview.read.tokenized.report;
    let data = json!({
        "model": preview.model,
        "template": preview.read.template.as_ref().map(|template| &template.name),
        "datasets": counts.collect::<Vec<_>>(),
        "total": format!(
            "{} rows, {} tokens, {} of them trained",
            thousands(report.rows),
            thousands(report.tokens),
            thousands(report.trained_tokens)
        ),
        "notes": preview.read.notes.iter().chain(&preview.losses).collect::<Vec<_>>(),
        "lengths": histogram::groups(&preview.lengths()),
        "found": found,
        "rows": shown,
    });
    Ok(PAGE.replacen(PLACE, &in_script(&data), 1))
}

/// A row with its tokens in columns: ids, texts, weights, and runs of one role. Special tokens by their places.
fn row_of(row: usize, origin: Option<String>, tokens: &[Shown]) -> Value {
    let mut weights: Vec<(usize, f64)> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if index == 0 || tokens[index - 1].weight != token.weight {
            weights.push((index, decimal(token.weight)));
        }
    }
    let mut roles: Vec<(usize, &str)> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if index == 0 || tokens[index - 1].role != token.role {
            roles.push((index, role_name(token.role)));
        }
    }
    let special = tokens.iter().enumerate().filter(|(_, token)| token.special).map(|(index, _)| index);
    json!({
        "number": row + 1,
        "origin": origin,
        "ids": tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
        "texts": tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>(),
        "weights": weights,
        "roles": roles,
        "special": special.collect::<Vec<_>>(),
    })
}

/// JSON that can stand in a script element: nothing in it ends the element or begins a comment.
fn in_script(data: &Value) -> String {
    let mut text = String::new();
    for letter in data.to_string().chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text += &format!("\\u{:04x}", u32::from(letter)),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_the_script() {
        let data = json!({ "text": "</script><!-- <script>&amp;\u{2028}\"\\" });
        let text = in_script(&data);
        assert!(!text.contains(['<', '>', '&', '\u{2028}']), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), data);
    }

    #[test]
    fn the_page_has_one_place_for_the_data_and_nothing_from_elsewhere() {
        assert_eq!(PAGE.matches(PLACE).count(), 1);
        for outside in ["http:", "https:", "//cdn", "@import", "url(", " src=", "innerHTML", "document.write", "eval("]
        {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        assert!(PAGE.contains("default-src 'none'"), "the browser is told so too");
    }

    #[test]
    fn columns_of_a_row() {
        let token = |id: u32, text: &str, weight: f32, role| Shown {
            id,
            text: text.to_owned(),
            weight,
            role,
            special: id == 1,
        };
        let assistant = Some(luthier_data::Role::Assistant);
        let tokens = [token(1, "<s>", 0.0, None), token(5, "a", 1.0, assistant), token(6, "b", 1.0, assistant)];
        let expected = json!({
            "number": 3, "origin": "faq record 3", "ids": [1, 5, 6], "texts": ["<s>", "a", "b"],
            "weights": [[0, 0.0], [1, 1.0]], "roles": [[0, "template"], [1, "assistant"]], "special": [0],
        });
        assert_eq!(row_of(2, Some("faq record 3".to_owned()), &tokens), expected);
    }
}
