//! Where a chat's lines come from: an editor with history on a terminal, plain lines elsewhere.

use std::io::{self, BufRead, IsTerminal};

use anyhow::Context;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

const PROMPT: &str = "> ";

pub(super) enum Input {
    Editor(Box<DefaultEditor>),
    Lines,
}

impl Input {
    pub(super) fn open() -> anyhow::Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Lines);
        }
        Ok(Self::Editor(Box::new(DefaultEditor::new().context("the terminal cannot be used")?)))
    }

    pub(super) fn is_editor(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// The next line without its end; `None` when no more comes.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Editor(editor) => match editor.readline(PROMPT) {
                Ok(line) => {
                    // A line that is not remembered is still a line.
                    let _ = editor.add_history_entry(line.as_str());
                    Ok(Some(line))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                Err(error) => Err(error).context("the terminal cannot be read"),
            },
            Self::Lines => {
                let mut bytes = Vec::new();
                let count = io::stdin().lock().read_until(b'\n', &mut bytes).context("the input cannot be read")?;
                Ok((count > 0).then(|| String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }
}
