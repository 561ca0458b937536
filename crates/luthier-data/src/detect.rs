//! The layout of records that nobody has described, found by looking at several of them. Where two fit, both are named with
//! the line of `dataset_info.json` that decides, since a guess would train the wrong thing in silence.

use serde_json::{Map, Value, json};

use crate::layout::{AlpacaLayout, Layout, MessagesLayout, PromptLayout, Replies, Verdict};
use crate::records::verdict;

/// A layout that records may have.
struct Candidate {
    /// What it is, for messages: `alpaca (instruction, output)`.
    name: String,
    layout: Layout,
    /// What `dataset_info.json` must say besides the file's name.
    entry: Value,
}

/// The layout that most of the records fit.
///
/// Errors: none or two, the clause that says so. `file` is what the line of `dataset_info.json` would name; with `trl` only
/// TRL's layouts are looked for.
pub(crate) fn detect(records: &[&Map<String, Value>], name: &str, file: &str, trl: bool) -> Result<Layout, String> {
    let mut found: Vec<(Candidate, usize)> = Vec::new();
    for record in records {
        let candidates = candidates(record).into_iter();
        for candidate in candidates.filter(|candidate| !trl || matches!(candidate.layout, Layout::Prompt(_))) {
            // One layout, whatever keys a record shows of it.
            match found.iter_mut().find(|(known, _)| known.layout == candidate.layout) {
                Some((_, count)) => *count += 1,
                None => found.push((candidate, 1)),
            }
        }
    }
    // A few odd records do not decide; they will be told apart as broken.
    found.retain(|(_, count)| count * 2 >= records.len().max(1));
    if found.len() > 1 {
        return Err(ambiguous(&found, name, file));
    }
    found.pop().map(|(candidate, _)| candidate.layout).ok_or_else(|| unknown(records, name, file))
}

fn ambiguous(found: &[(Candidate, usize)], name: &str, file: &str) -> String {
    let names: Vec<&str> = found.iter().map(|(candidate, _)| candidate.name.as_str()).collect();
    let mut text =
        format!("its records fit {}; write the line that you mean into dataset_info.json:", names.join(" and "));
    for (candidate, _) in found {
        let Value::Object(more) = &candidate.entry else { continue };
        let mut entry = Map::from_iter([("file_name".to_owned(), json!(file))]);
        entry.extend(more.clone());
        text.push_str(&format!("\n  {}: {}", json!(name), spaced(&Value::Object(entry))));
    }
    text
}

fn unknown(records: &[&Map<String, Value>], name: &str, file: &str) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for key in records.iter().flat_map(|record| record.keys()) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let columns = json!({"file_name": file, "columns": {"prompt": "...", "response": "..."}});
    format!(
        "its records have the keys {}; expected instruction and output, prompt and completion, messages, conversations, \
         chosen and rejected, text, or input_ids; say what the keys mean with a line in dataset_info.json, such as\n  {}: {}",
        keys.join(", "),
        json!(name),
        spaced(&columns)
    )
}

/// JSON on one line as people write it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let entries: Vec<String> =
                object.iter().map(|(key, value)| format!("{}: {}", json!(key), spaced(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn candidates(record: &Map<String, Value>) -> Vec<Candidate> {
    let mut fits = Vec::new();
    let pair = record.contains_key("chosen") && record.contains_key("rejected");
    let label = verdict(record, "label").is_ok();
    let tagged = if label { Verdict::Tag("label".to_owned()) } else { Verdict::None };
    let ranking = || Verdict::Ranking { chosen: "chosen".to_owned(), rejected: "rejected".to_owned() };
    let mut fit = |name: String, layout: Layout, entry: Value| fits.push(Candidate { name, layout, entry });

    let has = |key: &str| record.contains_key(key);
    if has("instruction") && pair && !has("output") {
        let layout = AlpacaLayout { response: None, verdict: ranking(), ..AlpacaLayout::default() };
        let columns = json!({"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"});
        fit(
            "alpaca pairs (instruction, chosen, rejected)".to_owned(),
            Layout::Alpaca(layout),
            json!({"ranking": true, "columns": columns}),
        );
    } else if has("instruction") || has("output") && !has("prompt") {
        let keys: Vec<&str> = ["instruction", "output"].into_iter().filter(|key| has(key)).collect();
        let kto = ["kto_tag", "label"].into_iter().find(|key| verdict(record, key).is_ok());
        let verdict = kto.map_or(Verdict::None, |key| Verdict::Tag(key.to_owned()));
        let entry = kto.map_or(
            json!({}),
            |key| json!({"columns": {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": key}}),
        );
        let layout = Layout::Alpaca(AlpacaLayout { verdict, ..AlpacaLayout::default() });
        fit(format!("alpaca ({})", keys.join(", ")), layout, entry);
    }
    for key in ["messages", "conversations", "conversation"] {
        let list = match record.get(key) {
            Some(Value::Array(list)) => list.first(),
            Some(Value::String(text)) if text.starts_with("[{") => None,
            _ => continue,
        };
        let sharegpt = list.map_or(key != "messages", |message| message.get("from").is_some());
        let base = if sharegpt { MessagesLayout::sharegpt() } else { MessagesLayout::openai() };
        let open = list.is_some() && pair && !ends_with_reply(record.get(key));
        let verdict = if open { ranking() } else { tagged.clone() };
        let mut columns = Map::from_iter([("messages".to_owned(), json!(key))]);
        match &verdict {
            Verdict::Ranking { .. } => {
                columns.extend([("chosen".to_owned(), json!("chosen")), ("rejected".to_owned(), json!("rejected"))])
            }
            Verdict::Tag(tag) => columns.extend([("kto_tag".to_owned(), json!(tag))]),
            Verdict::None => {}
        }
        let entry = json!({"formatting": if sharegpt { "sharegpt" } else { "openai" }, "columns": columns});
        let layout = MessagesLayout { messages: key.to_owned(), verdict, ..base };
        fit(format!("a list of messages ({key})"), Layout::Messages(layout), entry);
        if open {
            return fits;
        }
    }
    if pair && !has("instruction") {
        let prompt = has("prompt").then(|| "prompt".to_owned());
        let names = if prompt.is_some() { "prompt, chosen, rejected" } else { "chosen, rejected" };
        let replies = Replies::Pair { chosen: "chosen".to_owned(), rejected: "rejected".to_owned() };
        fit(format!("pairs ({names})"), Layout::Prompt(PromptLayout { prompt, replies }), json!({"formatting": "trl"}));
    } else if has("chosen_messages") && has("rejected_messages") {
        let replies = Replies::Pair { chosen: "chosen_messages".to_owned(), rejected: "rejected_messages".to_owned() };
        let layout = Layout::Prompt(PromptLayout { prompt: None, replies });
        fit("pairs (chosen_messages, rejected_messages)".to_owned(), layout, json!({"formatting": "trl"}));
    }
    for (prompt, reply) in
        [("prompt", "completion"), ("prompt", "response"), ("prompt", "output"), ("question", "answer")]
    {
        if has(prompt) && has(reply) {
            let judged = Replies::Judged { completion: reply.to_owned(), label: "label".to_owned() };
            let replies = if label { judged } else { Replies::One(reply.to_owned()) };
            let layout = Layout::Prompt(PromptLayout { prompt: Some(prompt.to_owned()), replies });
            let mut columns =
                Map::from_iter([("prompt".to_owned(), json!(prompt)), ("response".to_owned(), json!(reply))]);
            columns.extend(label.then(|| ("kto_tag".to_owned(), json!("label"))));
            fit(format!("prompt and reply ({prompt}, {reply})"), layout, json!({"columns": columns}));
        }
    }
    if record.get("text").is_some_and(Value::is_string) {
        let layout = Layout::Text { text: "text".to_owned(), query: None };
        fit("documents (text)".to_owned(), layout, json!({"columns": {"prompt": "text"}}));
    }
    if has("input_ids") {
        fit("tokens (input_ids)".to_owned(), Layout::Tokens, json!({"formatting": "tokens"}));
    }
    fits
}

fn ends_with_reply(messages: Option<&Value>) -> bool {
    let last = messages.and_then(Value::as_array).and_then(|list| list.last());
    let role = last.and_then(|last| last.get("role").or_else(|| last.get("from"))).and_then(Value::as_str);
    matches!(role, Some("assistant" | "gpt" | "model" | "chatgpt" | "bot" | "function_call"))
}
