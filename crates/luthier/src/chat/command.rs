//! What a line of a chat is: a message, or a command that begins with a slash.

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Nothing to do.
    Empty,
    Message(&'a str),
    Help,
    Clear,
    /// With `None`: show it.
    System(Option<&'a str>),
    Undo,
    Retry,
    /// With `None`: show them.
    Set(Option<(&'a str, &'a str)>),
    Save(&'a str),
    /// With `None`: list them.
    Adapter(Option<&'a str>),
    Exit,
    /// A sentence that says what was expected.
    Wrong(String),
}

pub(super) const HELP: &str = "\
/help            show this
/clear           begin again; the system message stays
/system TEXT     set the system message and begin again; without TEXT show it
/undo            take the last message and its answer back
/retry           answer the last message again, with another seed
/set KEY VALUE   change temperature, top_k, top_p, min_p, repetition_penalty, seed or max_new_tokens,
                 add a text to stop (/set stop none takes all away); without KEY show them
/adapter NAMES   go on with these adapters, added; all and none are names too; without NAMES list them
/save FILE       save the conversation as JSON that can be trained on
/exit            end (as Ctrl-D)
A message that begins with a slash is written with two. Ctrl-C stops an answer.";

impl<'a> Line<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Empty;
        }
        let Some(command) = text.strip_prefix('/') else { return Self::Message(text) };
        if command.starts_with('/') {
            return Self::Message(command);
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (word, rest) {
            ("help", "") => Self::Help,
            ("clear", "") => Self::Clear,
            ("system", "") => Self::System(None),
            ("system", text) => Self::System(Some(text)),
            ("undo", "") => Self::Undo,
            ("retry", "") => Self::Retry,
            ("set", "") => Self::Set(None),
            ("set", rest) => match rest.split_once(|c: char| c.is_whitespace() || c == '=') {
                Some((key, value)) => Self::Set(Some((key, value.trim()))),
                None => Self::Wrong(format!("/set {rest}: expected a value, as in /set temperature 0.7")),
            },
            ("adapter", "") => Self::Adapter(None),
            ("adapter", names) => Self::Adapter(Some(names)),
            ("save", "") => Self::Wrong("/save: expected the name of a file".to_owned()),
            ("save", file) => Self::Save(file),
            ("exit" | "quit", "") => Self::Exit,
            ("help" | "clear" | "undo" | "retry" | "exit" | "quit", _) => Self::Wrong(format!(
                "/{word} takes nothing after it; a message that begins with a slash is written with two"
            )),
            _ => Self::Wrong(format!(
                "there is no command /{word} (/help lists all); a message that begins with a slash is written with two"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Line::*;
    use super::*;

    #[test]
    fn lines() {
        for (text, expected) in [
            ("  ", Empty),
            (" Hello there ", Message("Hello there")),
            ("//etc/hosts", Message("/etc/hosts")),
            ("/help", Help),
            ("/system You are brief.", System(Some("You are brief."))),
            ("/system", System(None)),
            ("/set temperature 0.5", Set(Some(("temperature", "0.5")))),
            ("/set top_k=3", Set(Some(("top_k", "3")))),
            ("/set", Set(None)),
            ("/adapter", Adapter(None)),
            ("/adapter poet cook", Adapter(Some("poet cook"))),
            ("/save my file.json", Save("my file.json")),
            ("/quit", Exit),
        ] {
            assert_eq!(Line::parse(text), expected, "{text}");
        }
        for text in ["/etc/hosts", "/", "/set top_k", "/save", "/clear everything"] {
            assert!(matches!(Line::parse(text), Wrong(_)), "{text}");
        }
    }
}
