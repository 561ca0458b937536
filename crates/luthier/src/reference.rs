//! The settings written for people, from the table: the long help of `luthier train`, and the page `docs/settings.md`.

use std::fmt::Write;

use crate::settings::table::SETTINGS;
use crate::settings::{Group, Kind, Setting, Status, differences, schema};

/// What follows `luthier settings`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The reference page, docs/settings.md; what is printed when nothing is said
    #[arg(long, group = "page")]
    markdown: bool,
    /// The JSON schema, docs/settings.schema.json: editors check and complete with it
    #[arg(long, group = "page")]
    schema: bool,
    /// What differs from LLaMA-Factory, docs/differences.md
    #[arg(long, group = "page")]
    differences: bool,
}

/// The page that was asked for.
pub(crate) fn text(arguments: &Arguments) -> String {
    match arguments {
        Arguments { schema: true, .. } => schema::text(),
        Arguments { differences: true, .. } => differences::page(),
        Arguments { markdown: _, .. } => page(),
    }
}

/// What follows the usage in `luthier train --help`.
pub(crate) fn help_text() -> String {
    let mut text = String::from(
        "Settings stand in CONFIG (YAML, JSON or TOML), or after it, or without it, as\n\
         key=value, --key value or --key=value, with dashes or underscores. A switch\n\
         alone is true (--bf16), --no_bf16 is false, and a list may be several words\n\
         (--lora_target q_proj v_proj).\n",
    );
    for group in Group::ALL {
        let rows: Vec<_> = honoured(group).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{}:", group.title());
        for setting in rows {
            let _ = writeln!(text, "  {} <{}>{}", setting.name, short_kind(setting.kind), default(setting));
            let _ = writeln!(text, "      {}{}", setting.help, details(setting));
            if let Kind::Choice(names, _) = setting.kind
                && names.len() > MOST_IN_LINE
            {
                let _ = writeln!(text, "{}", wrap(&names.join(", "), 116).replace("  ", "      "));
            }
        }
    }
    let of = |wanted: fn(Status) -> bool| {
        let names: Vec<_> = SETTINGS.iter().filter(|setting| wanted(setting.status)).map(|s| s.name).collect();
        wrap(&names.join(", "), 116)
    };
    let _ = writeln!(text, "\nAccepted without effect, and said once:\n{}", of(|s| matches!(s, Status::NoEffect(_))));
    let _ = writeln!(
        text,
        "\nRefused unless left at their default, since the result would differ:\n{}",
        of(|s| matches!(s, Status::Refused(_)))
    );
    text
}

/// The reference page.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         This page is written by `cargo xtask settings` from the table in `crates/luthier/src/settings/table.rs`; a test\n\
         compares them. Keys, meanings and defaults are LLaMA-Factory's (0.9.5) unless a row says *Luthier's own*.\n\
         A value of `null` is the default. An unknown key is an error that names the nearest known one. What differs from\n\
         LLaMA-Factory on purpose is in [differences.md](differences.md).\n\n\
         Settings stand in a file (YAML, JSON or TOML, by its extension), or on the command line, or both; there they win:\n\n    \
         luthier train lora.yaml lora_rank=16 output_dir=saves/b\n    \
         luthier train --stage sft --model_name_or_path models/qwen --dataset rows --lora_rank 8 --bf16\n\n\
         The first word is the file if it is no setting. `key=value`, `--key value` and `--key=value` mean the same, with\n\
         dashes or underscores in the key. A switch alone is true (`--bf16`), `--no_bf16` is false, and a list may be several\n\
         words (`--lora_target q_proj v_proj`). Editors check and complete with [settings.schema.json](settings.schema.json):\n\
         begin a YAML file with `# yaml-language-server: $schema=PATH/settings.schema.json`.\n",
    );
    for group in Group::ALL {
        let _ = writeln!(page, "\n## {}", group.title());
        if honoured(group).next().is_some() {
            let _ = writeln!(page, "\n| key | value | default | meaning |\n| --- | --- | --- | --- |");
            for setting in honoured(group) {
                let default = if setting.default.is_empty() { "" } else { &format!("`{}`", setting.default) };
                let _ = writeln!(
                    page,
                    "| `{}` | {} | {default} | {}{} |",
                    setting.name,
                    setting.kind.expected(),
                    setting.help,
                    details(setting)
                );
            }
        }
        rest(&mut page, group, "Accepted without effect, said once", |status| match status {
            Status::NoEffect(reason) => Some(reason),
            _ => None,
        });
        rest(&mut page, group, "Refused unless left at the default", |status| match status {
            Status::Refused(reason) => Some(reason),
            _ => None,
        });
    }
    page
}

/// Lists the keys of a group that share a fate, by its reason, in the order in which the reasons first appear.
fn rest(page: &mut String, group: Group, title: &str, reason_of: fn(Status) -> Option<&'static str>) {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for setting in SETTINGS.iter().filter(|setting| setting.group == group) {
        let Some(reason) = reason_of(setting.status) else { continue };
        let name = format!("`{}`", setting.name);
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    if reasons.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{title}:\n");
    for (reason, names) in reasons {
        let _ = writeln!(page, "- {}: {reason}.", names.join(", "));
    }
}

fn honoured(group: Group) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |setting| setting.group == group && setting.status == Status::Honoured)
}

fn default(setting: &Setting) -> String {
    if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) }
}

fn details(setting: &Setting) -> String {
    let mut details = String::new();
    if !setting.applies_to.is_empty() {
        let _ = write!(details, " Only with {}.", setting.applies_to);
    }
    if let Kind::Choice(_, [_, ..]) = setting.kind {
        details.push_str(" Others of LLaMA-Factory are not there yet.");
    }
    if !setting.aliases.is_empty() {
        let _ = write!(details, " Also: {}.", setting.aliases.join(", "));
    }
    if setting.ours {
        details.push_str(" Luthier's own.");
    }
    details
}

/// Choices that are shown beside their key; more get lines of their own.
const MOST_IN_LINE: usize = 5;

fn short_kind(kind: Kind) -> String {
    match kind {
        Kind::Switch => "true|false".to_owned(),
        Kind::Whole(..) => "whole number".to_owned(),
        Kind::WholeOrAuto(..) => "whole number or auto".to_owned(),
        Kind::Number(..) => "number".to_owned(),
        Kind::Choice(names, _) if names.len() > MOST_IN_LINE => "name".to_owned(),
        Kind::Choice(names, _) => names.join("|"),
        Kind::Text => "text".to_owned(),
        Kind::Names => "names".to_owned(),
        Kind::Weights(_) => "name=weight,...".to_owned(),
        Kind::Options => "name=value,...".to_owned(),
        Kind::Anything => "anything".to_owned(),
    }
}

/// Breaks a text into indented lines of at most this width.
fn wrap(text: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line = String::from(" ");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > width {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from(" ");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_the_one_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == super::page(), "docs/settings.md is not what the table says: run `cargo xtask settings`");
    }

    #[test]
    fn no_line_of_the_help_is_wider_than_120() {
        for line in super::help_text().lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }
}
