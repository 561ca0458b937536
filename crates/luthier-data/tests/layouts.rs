//! Every way that a record can be laid out, as people and programs write it.

mod common;

use common::{assistant, system, user};
use luthier_data::{Conversation, Dataset, Message, ReadOptions, Record, Role, ToolCall};
use serde_json::{Value, json};

/// One record without an entry of `dataset_info.json`.
#[track_caller]
fn read(record: &Value) -> Record {
    let bytes = format!("{record}\n");
    let mut dataset = Dataset::parse("a.jsonl", bytes.as_bytes(), None, true).expect("the record is read");
    dataset.records.pop().expect("a record")
}

/// One record with an entry; the error is what is said.
fn with_entry(entry: &Value, record: &Value) -> Result<Record, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut entry = entry.clone();
    entry["file_name"] = json!("a.jsonl");
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("written");
    write("dataset_info.json", json!({"mine": entry}).to_string());
    write("a.jsonl", format!("{record}\n"));
    let options = ReadOptions { folder: folder.path(), strict: true, max_samples: None, seed: 0 };
    let dataset = Dataset::open("mine", &options).map_err(|error| error.to_string());
    dataset.map(|mut dataset| dataset.records.pop().expect("a record"))
}

fn tool(content: &str) -> Message {
    Message::new(Role::Tool, content)
}

fn calling(name: &str, arguments: Value) -> Message {
    let tool_calls = vec![ToolCall::new(name, arguments)];
    Message { tool_calls, ..assistant("") }
}

fn conversation(messages: Vec<Message>) -> Record {
    Record::Conversation(messages.into())
}

#[test]
fn openai_with_tools_thoughts_and_weights() {
    let call = json!({"id": "1", "type": "function", "function": {"name": "time", "arguments": "{\"zone\": \"UTC\"}"}});
    let found = read(&json!({
        "tools": [{"type": "function", "function": {"name": "time"}}],
        "messages": [
            {"role": "developer", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "time?"}]},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "12:00"},
            {"role": "assistant", "content": "Noon.", "reasoning_content": "easy", "weight": 0},
            {"role": "user", "content": "Thanks."},
            {"role": "assistant", "content": "Bye.", "train": true},
        ]
    }));
    let noon = Message { reasoning_content: Some("easy".to_owned()), weight: Some(0.0), ..assistant("Noon.") };
    let bye = Message { weight: Some(1.0), ..assistant("Bye.") };
    let messages = vec![
        system("S"),
        user("What time?"),
        Message {
            tool_calls: vec![ToolCall { id: Some("1".to_owned()), ..ToolCall::new("time", json!({"zone": "UTC"})) }],
            ..assistant("")
        },
        Message { tool_call_id: Some("1".to_owned()), ..tool("12:00") },
        noon,
        user("Thanks."),
        bye,
    ];
    let tools = vec![json!({"type": "function", "function": {"name": "time"}})];
    assert_eq!(found, Record::Conversation(Conversation { messages, tools }));
}

#[test]
fn parts_of_llamafactorys_newer_files() {
    let found = read(&json!({"tools": "", "messages": [
        {"role": "user", "content": [{"type": "text", "value": "Q"}], "loss_weight": 0.0},
        {"role": "assistant", "content": [
            {"type": "reasoning", "value": "T"},
            {"type": "tool_call", "value": "{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},
        ], "loss_weight": 1.0},
    ]}));
    let asked = Message { weight: Some(0.0), ..user("Q") };
    let called =
        Message { reasoning_content: Some("T".to_owned()), weight: Some(1.0), ..calling("f", json!({"a": 1})) };
    assert_eq!(found, conversation(vec![asked, called]));
}

#[test]
fn sharegpt_with_function_calls() {
    let entry = json!({"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}});
    let found = with_entry(
        &entry,
        &json!({"tools": "[{\"name\": \"f\"}]", "conversations": [
            {"from": "human", "value": "Q"},
            {"from": "function_call", "value": "<think>T</think>{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},
            {"from": "observation", "value": "O"},
            {"from": "gpt", "value": "A"},
        ]}),
    );
    let called = Message { reasoning_content: Some("T".to_owned()), ..calling("f", json!({"a": 1})) };
    let messages = vec![user("Q"), called, tool("O"), assistant("A")];
    assert_eq!(found, Ok(Record::Conversation(Conversation { messages, tools: vec![json!({"name": "f"})] })));
}

/// LLaMA-Factory skips such records with a warning.
#[test]
fn turns_must_alternate_where_an_entry_names_the_roles() {
    let entry = json!({"formatting": "sharegpt"});
    let turns = |roles: &[&str]| {
        let list: Vec<Value> = roles.iter().map(|role| json!({"from": role, "value": "x"})).collect();
        with_entry(&entry, &json!({"conversations": list})).map(|_| ())
    };
    let broken = |problem: &str| Err(format!("dataset mine, record 1 (line 1): {problem}"));
    assert_eq!(turns(&["system", "human", "gpt"]), Ok(()));
    assert_eq!(
        turns(&["gpt", "human"]),
        broken("message 1: turns must alternate, and the user or a tool has this one")
    );
    assert_eq!(
        turns(&["human", "human", "gpt"]),
        broken("message 2: turns must alternate, and the assistant has this one")
    );
    assert_eq!(turns(&["human", "gpt", "system"]), broken("message 3: a system message can only be the first"));
    assert_eq!(
        turns(&["human"]),
        broken("the conversation does not end with the assistant, so its end has no reply to train")
    );
    assert_eq!(turns(&[]), broken("the conversation is empty"));
}

#[test]
fn tags_unset_what_they_leave_out() {
    let tags = json!({"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"});
    let entry = json!({"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags});
    let record = json!({"messages": [
        {"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
    ]});
    assert_eq!(
        with_entry(&entry, &record),
        Err("dataset mine, record 1 (line 1): message 1: \"role\" is \"system\"; expected one of user, assistant"
            .to_owned())
    );
    let columns = json!({"columns": {"prompt": "instruction", "response": "output"}});
    let record = json!({"instruction": "Q", "input": "not read", "output": "A"});
    assert_eq!(with_entry(&columns, &record), Ok(conversation(vec![user("Q"), assistant("A")])));
    assert_eq!(with_entry(&json!({}), &record), Ok(conversation(vec![user("Q\nnot read"), assistant("A")])));
}

#[test]
fn preferences() {
    let expected = Record::Preference(luthier_data::Preference {
        prompt: vec![user("Q")].into(),
        chosen: assistant("A"),
        rejected: assistant("B"),
    });
    let alpaca = json!({"instruction": "Q", "chosen": "A", "rejected": "B"});
    let (prompt, one, other) = (
        json!({"role": "user", "content": "Q"}),
        json!({"role": "assistant", "content": "A"}),
        json!({"role": "assistant", "content": "B"}),
    );
    for record in [
        alpaca.clone(),
        json!({"prompt": "Q", "chosen": "A", "rejected": "B"}),
        json!({"prompt": [prompt], "chosen": [one], "rejected": [other]}),
        json!({"prompt": "Q", "chosen": [prompt, one], "rejected": [prompt, other]}),
        json!({"chosen": [prompt, one], "rejected": [prompt, other]}),
        json!({"messages": [prompt], "chosen": one, "rejected": other}),
        json!({"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "A"},
               "rejected": {"from": "gpt", "value": "B"}}),
    ] {
        assert_eq!(read(&record), expected, "{record}");
    }
    let entry =
        json!({"ranking": true, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}});
    assert_eq!(with_entry(&entry, &alpaca), Ok(expected));
}

#[test]
fn verdicts() {
    let judged = |desirable| {
        Record::Judged(luthier_data::Judged { conversation: vec![user("Q"), assistant("A")].into(), desirable })
    };
    let messages = json!([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]);
    assert_eq!(read(&json!({"messages": messages, "label": true})), judged(true));
    assert_eq!(read(&json!({"prompt": "Q", "completion": "A", "label": 0})), judged(false));
    assert_eq!(read(&json!({"instruction": "Q", "output": "A", "kto_tag": false})), judged(false));
    let entry = json!({"columns": {"prompt": "q", "response": "a", "kto_tag": "good"}});
    assert_eq!(with_entry(&entry, &json!({"q": "Q", "a": "A", "good": true})), Ok(judged(true)));
}

#[test]
fn prompts_and_replies() {
    let expected = conversation(vec![user("Q"), assistant("A")]);
    for record in [
        json!({"prompt": "Q", "completion": "A"}),
        json!({"prompt": "Q", "response": "A"}),
        json!({"question": "Q", "answer": "A"}),
        json!({"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}),
        json!({"messages": "[{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"}]"}),
    ] {
        assert_eq!(read(&record), expected, "{record}");
    }
}

#[test]
fn pictures_are_refused_and_empty_columns_are_not() {
    let entry = json!({"formatting": "sharegpt", "columns": {"messages": "conversations", "images": "images"}});
    let record = |images: Value| json!({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "images": images});
    assert_eq!(with_entry(&entry, &record(json!([]))), Ok(conversation(vec![user("Q"), assistant("A")])));
    assert_eq!(
        with_entry(&entry, &record(json!(["a.png"]))),
        Err("dataset mine: record 1 has images, and models here are text only; take such records out, or their images"
            .to_owned())
    );
}

#[test]
fn what_is_not_on_this_machine_is_refused() {
    let problem = |entry: Value| with_entry(&entry, &json!({})).expect_err("refused");
    assert!(problem(json!({"script_url": "a.py"})).contains("no code of a dataset is ever run"));
    assert!(problem(json!({"ms_hub_url": "a/b"})).contains("ModelScope"));
    assert!(problem(json!({"cloud_file_name": "s3://a"})).contains("download it"));
    assert!(problem(json!({"columns": {"promt": "a"}})).contains("\"promt\" is not known"));
    assert!(problem(json!({"formatting": "vicuna"})).contains("expected alpaca, sharegpt or openai"));
    assert!(problem(json!({"num_samples": 0})).contains("expected a whole number from 1 on"));
    let one = json!({"instruction": "a", "output": "b"});
    assert_eq!(
        with_entry(&json!({"num_samples": 4_294_967_295_u32}), &one),
        Err("dataset mine: num_samples is 4294967295, and there are 1 records; expected at most 1000 times as many"
            .to_owned())
    );
}
