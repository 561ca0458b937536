//! A named template as Jinja source, so that other programs write in front of the tuned model what it was trained on.
//!
//! Conversations without tools only: a template of that kind says so and refuses them, rather than to write them in
//! another way than they were trained.

use super::{NamedTemplate, Thinks};

/// What the source begins with, around the name.
const COMMENT: &str = "{# Written by Luthier from the template ";
const COMMENT_END: &str = " #}";

/// The name of the template that a source was written from.
pub(crate) fn written_from(source: &str) -> Option<&str> {
    Some(source.strip_prefix(COMMENT)?.split_once(COMMENT_END)?.0)
}

/// A text as a literal of Jinja.
fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
    format!("'{escaped}'")
}

/// A text of the table as an expression.
fn expression(slots: &str, content: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = slots;
    while let Some((before, behind)) = rest.split_once("{{") {
        if !before.is_empty() {
            parts.push(literal(before));
        }
        let (name, behind) = behind.split_once("}}").unwrap_or((behind, ""));
        rest = behind;
        match name {
            "content" => parts.push(content.to_owned()),
            "turn" => parts.push("state.turn".to_owned()),
            "bos" => parts.push("(bos_token or '')".to_owned()),
            "eos" => parts.push("(eos_token or '')".to_owned()),
            "apart" => {}
            token => parts.push(literal(token.trim_start_matches("token:"))),
        }
    }
    if !rest.is_empty() {
        parts.push(literal(rest));
    }
    // `~` writes numbers too.
    parts.join(" ~ ")
}

impl NamedTemplate {
    /// The source.
    pub(crate) fn jinja(&self) -> String {
        let row = &self.row;
        let name = self.name;
        let mut out = format!(
            "{COMMENT}{name}{COMMENT_END}{{% if tools %}}{{{{ raise_exception('the template {name} is written here without tools') }}}}{{% endif %}}\
             {{% if messages and messages[0]['role'] == 'system' and messages[0]['content'] %}}\
             {{% set instructions = messages[0]['content'] %}}{{% else %}}{{% set instructions = {} %}}{{% endif %}}\
             {{% set state = namespace(turn=0, inside='') %}}",
            literal(self.default_system())
        );
        if !row.prefix.is_empty() {
            out.push_str(&format!("{{{{ {} }}}}", expression(row.prefix, "")));
        }
        let system = expression(row.system, "instructions");
        out.push_str(&if row.system_in_user {
            format!("{{% if instructions %}}{{% set state.inside = {system} %}}{{% endif %}}")
        } else {
            format!("{{% if instructions %}}{{{{ {system} }}}}{{% endif %}}")
        });
        let content = "state.inside ~ message['content']";
        let said = |slots: &str| {
            format!("{{{{ {} }}}}{{% set state.inside = '' %}}", expression(slots, &format!("({content})")))
        };
        let close = self.thought_words().1;
        let spoken = match row.thinks {
            Thinks::Never => "message['content']".to_owned(),
            _ => format!("message['content'].split({})[-1].lstrip('\\n')", literal(close.trim())),
        };
        out.push_str(&format!(
            "{{% for message in messages %}}{{% if message['role'] == 'user' %}}{}\
             {{% elif message['role'] == 'tool' %}}{}\
             {{% elif message['role'] == 'assistant' %}}{{% if message['tool_calls'] %}}\
             {{{{ raise_exception('the template {name} is written here without tools') }}}}{{% endif %}}\
             {{{{ {} }}}}{{% set state.turn = state.turn + 1 %}}{{% endif %}}{{% endfor %}}",
            said(row.user),
            said(row.observation_slots()),
            expression(row.assistant, &spoken),
        ));
        let (open, close) = self.thought_words();
        let empty = match row.thinks {
            Thinks::Never => return out,
            Thinks::OpenAndClose => format!("{open}{close}"),
            Thinks::Close => close.to_owned(),
        };
        let unthinking = if self.thinking() { "enable_thinking is defined and not enable_thinking" } else { "true" };
        out.push_str(&format!(
            "{{% if add_generation_prompt and {unthinking} %}}{{{{ {} }}}}{{% endif %}}",
            literal(&empty)
        ));
        out
    }
}
