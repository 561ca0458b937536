//! Alpaca records, as LLaMA-Factory's converter reads them (`data/converter.py`): the prompt is `prompt + "\n" + query` with
//! empty parts left out, `history` is a list of [prompt, response].

use serde_json::{Map, Value};

use super::message::tools;
use crate::conversation::{Conversation, Judged, Message, Preference, Role};
use crate::layout::{AlpacaLayout, Verdict};
use crate::records::{Record, kind, optional_column, required, verdict};

pub(crate) fn read(columns: &AlpacaLayout, object: &Map<String, Value>) -> Result<Record, String> {
    let expected = columns.expected();
    let mut messages = Vec::new();
    if let Some(system) = optional_column(object, columns.system.as_deref())?.filter(|text| !text.is_empty()) {
        messages.push(Message::new(Role::System, system));
    }
    if let Some(column) = &columns.history {
        history(object.get(column), column, &mut messages)?;
    }
    let query = optional_column(object, columns.query.as_deref())?;
    let prompt = match &columns.prompt {
        // Either part may be null, as long as there is one.
        Some(column) if query.is_none_or(str::is_empty) => required(object, column, &expected)?,
        column => optional_column(object, column.as_deref())?.unwrap_or_default(),
    };
    let parts: Vec<&str> = [prompt, query.unwrap_or_default()].into_iter().filter(|part| !part.is_empty()).collect();
    messages.push(Message::new(Role::User, parts.join("\n")));
    let tools = tools(object, columns.tools.as_deref())?;
    let reply = |column: &str| required(object, column, &expected).map(|text| Message::new(Role::Assistant, text));
    if let Verdict::Ranking { chosen, rejected } = &columns.verdict {
        let reply = |column: &str| required(object, column, column).map(|text| Message::new(Role::Assistant, text));
        let (chosen, rejected) = (reply(chosen)?, reply(rejected)?);
        return Ok(Record::Preference(Preference { prompt: Conversation { messages, tools }, chosen, rejected }));
    }
    messages.push(reply(columns.response.as_deref().unwrap_or("output"))?);
    let conversation = Conversation { messages, tools };
    match &columns.verdict {
        Verdict::Tag(tag) => Ok(Record::Judged(Judged { conversation, desirable: verdict(object, tag)? })),
        _ => Ok(Record::Conversation(conversation)),
    }
}

fn history(value: Option<&Value>, column: &str, messages: &mut Vec<Message>) -> Result<(), String> {
    let parsed;
    let turns = match value {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(turns)) => turns,
        // A table holds a list as the text of its JSON.
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(()),
        Some(Value::String(text)) => {
            parsed =
                serde_json::from_str::<Vec<Value>>(text).map_err(|error| format!("{column:?} is not JSON: {error}"))?;
            &parsed
        }
        Some(other) => return Err(format!("{column:?} is {}, not a list of [prompt, response]", kind(other))),
    };
    for (index, turn) in turns.iter().enumerate() {
        let pair = turn.as_array().map(Vec::as_slice);
        let Some([Value::String(prompt), Value::String(response)]) = pair else {
            return Err(format!("{column:?}, turn {}: expected two texts, [prompt, response]", index + 1));
        };
        messages.push(Message::new(Role::User, prompt));
        messages.push(Message::new(Role::Assistant, response));
    }
    Ok(())
}
