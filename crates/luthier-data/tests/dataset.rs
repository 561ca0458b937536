//! Files into records, and what is said about broken ones.

mod common;

use common::{assistant, system, user};
use luthier_data::{Dataset, ReadOptions, Record};

fn options(folder: &std::path::Path) -> ReadOptions<'_> {
    ReadOptions { folder, strict: true, max_samples: None, seed: 42 }
}

fn check(name: &str, text: &str, expected: &[Record]) {
    let dataset = Dataset::parse(name, text.as_bytes(), None, false).expect("the dataset is read");
    assert_eq!(dataset.records, expected);
}

fn fails(name: &str, text: &str, message: &str) {
    let error = Dataset::parse(name, text.as_bytes(), None, true).expect_err("the dataset is refused");
    assert_eq!(error.to_string(), message);
}

#[test]
fn alpaca() {
    check(
        "faq.json",
        r#"[{"instruction": "Hi", "input": "", "output": "Hello"},
            {"instruction": "Add", "input": "1, 2", "output": "3", "system": "Be short.", "history": [["a", "b"]]}]"#,
        &[
            Record::Conversation(vec![user("Hi"), assistant("Hello")].into()),
            Record::Conversation(
                vec![system("Be short."), user("a"), assistant("b"), user("Add\n1, 2"), assistant("3")].into(),
            ),
        ],
    );
}

#[test]
fn messages_and_sharegpt_and_documents_in_lines() {
    let record = Record::Conversation(vec![system("S"), user("U"), assistant("A")].into());
    check(
        "chat.jsonl",
        "\u{feff}{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"U\"}, \
         {\"role\": \"assistant\", \"content\": \"A\"}]}\n\n",
        std::slice::from_ref(&record),
    );
    check(
        "chat.jsonl",
        r#"{"system": "S", "conversations": [{"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}]}"#,
        &[record],
    );
    let documents = ["one", "two"].map(|text| Record::Text(text.to_owned()));
    check("docs.jsonl", "{\"text\": \"one\"}\r\n{\"text\": \"two\"}", &documents);
    check("docs.txt", "one\ntwo\n", &documents);
}

#[test]
fn keys_that_are_not_read_are_counted() {
    let text = r#"[{"instruction": "a", "output": "b", "id": 1}, {"instruction": "a", "output": "b", "id": 2}]"#;
    let dataset = Dataset::parse("faq.json", text.as_bytes(), None, false).expect("the dataset is read");
    assert_eq!(dataset.ignored_keys.into_iter().collect::<Vec<_>>(), [("id".to_owned(), 2)]);
}

#[test]
fn a_record_without_output() {
    let good = r#"{"instruction": "a", "input": "", "output": "b"},"#.repeat(16);
    fails(
        "faq.json",
        &format!("[{good}{{\"instruction\": \"a\", \"input\": \"\"}}]"),
        "dataset faq.json, record 17: \"output\" is missing; expected instruction, input, output",
    );
    fails(
        "faq.jsonl",
        "{\"instruction\": \"a\", \"output\": \"b\"}\n\n{\"instruction\": \"a\", \"output\": 3}\n",
        "dataset faq.jsonl, record 2 (line 3): \"output\" is a number, not text",
    );
}

#[test]
fn other_broken_records() {
    fails("a.json", "[", "a.json: it is cut off: after record 0: EOF while parsing a list at line 1 column 1");
    fails("a.json", "[]", "dataset a.json: it has no records");
    fails("a.json", "[1]", "dataset a.json: its first record is a number, not an object");
    fails(
        "a.jsonl",
        "{\"text\": \"a\"}\n{\"text\"\n",
        "dataset a.jsonl, record 2 (line 2): it is not valid JSON: EOF while parsing an object at column 7",
    );
    fails(
        "a.json",
        r#"[{"messages": [{"role": "user", "content": "U"}]}]"#,
        "dataset a.json, record 1: the conversation does not end with the assistant, so its end has no reply to train",
    );
    fails(
        "a.json",
        r#"[{"messages": [{"role": "narrator", "content": "U"}]}]"#,
        "dataset a.json, record 1: message 1: \"role\" is \"narrator\"; expected one of user, human, prompter, assistant, gpt, \
         model, chatgpt, bot, system, developer, tool, observation, function, ipython, function_call",
    );
    fails(
        "a.json",
        r#"[{"instruction": "a", "output": "b", "history": [["a"]]}]"#,
        "dataset a.json, record 1: \"history\", turn 1: expected two texts, [prompt, response]",
    );
}

#[test]
fn a_layout_that_is_unknown_or_ambiguous() {
    fails(
        "a.json",
        r#"[{"frage": "a", "antwort": "b"}]"#,
        "dataset a.json: its records have the keys frage, antwort; expected instruction and output, prompt and completion, \
         messages, conversations, chosen and rejected, text, or input_ids; say what the keys mean with a line in \
         dataset_info.json, such as\n  \"a\": {\"file_name\": \"a.json\", \"columns\": {\"prompt\": \"...\", \"response\": \"...\"}}",
    );
    fails(
        "a.json",
        r#"[{"instruction": "a", "output": "b", "text": "a b"}]"#,
        "dataset a.json: its records fit alpaca (instruction, output) and documents (text); write the line that you mean into \
         dataset_info.json:\n  \"a\": {\"file_name\": \"a.json\"}\n  \"a\": {\"file_name\": \"a.json\", \"columns\": {\"prompt\": \"text\"}}",
    );
}

#[test]
fn names_of_dataset_info_come_first_then_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let info = r#"{
        "qa": {"file_name": "qa.json", "columns": {"prompt": "question", "response": "answer"}},
        "chat": {"file_name": "chat.json", "formatting": "sharegpt", "columns": {"messages": "turns"},
                 "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "you"}},
        "wiki": {"file_name": "wiki.txt", "columns": {"prompt": "text"}},
        "pairs": {"file_name": "qa.json", "ranking": true},
        "hub": {"hf_hub_url": "a/b"}
    }"#;
    for (name, text) in [
        ("dataset_info.json", info),
        ("qa.json", r#"[{"question": "Q", "answer": "A"}]"#),
        ("chat.json", r#"[{"turns": [{"who": "me", "what": "Q"}, {"who": "you", "what": "A"}]}]"#),
        ("wiki.txt", "one\n"),
        ("plain.json", r#"[{"instruction": "Q", "output": "A"}]"#),
    ] {
        std::fs::write(folder.path().join(name), text).expect("the file is written");
    }
    let records = |name: &str| Dataset::open(name, &options(folder.path())).expect("the dataset is read").records;
    let turns = [Record::Conversation(vec![user("Q"), assistant("A")].into())];
    assert_eq!(records("qa"), turns);
    assert_eq!(records("chat"), turns);
    assert_eq!(records("plain.json"), turns);
    assert_eq!(records("wiki"), [Record::Text("one".to_owned())]);

    let error =
        |name: &str| Dataset::open(name, &options(folder.path())).expect_err("the dataset is refused").to_string();
    let info = folder.path().join("dataset_info.json");
    assert_eq!(
        error("pairs"),
        format!("{}, entry pairs: \"ranking\" needs \"chosen\" and \"rejected\" in \"columns\"", info.display())
    );
    assert_eq!(
        error("hub"),
        format!(
            "{}, entry hub: it is a/b of the Hugging Face hub, and datasets are not downloaded; download it, and write \
             \"file_name\" with the path of its folder in place of \"hf_hub_url\"",
            info.display()
        )
    );
    assert_eq!(
        error("nope"),
        format!(
            "dataset nope was not found: {} has only qa, chat, wiki, pairs, hub, and there is no file nope or {}, \
             with or without .json, .jsonl, .csv, .tsv, .parquet, .arrow or .txt",
            info.display(),
            folder.path().join("nope").display()
        )
    );
}

#[test]
fn a_file_of_the_folder_is_found_by_its_name_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("rows.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n");
    write("lines.txt", "one\ntwo\n");
    let open = |name: &str| Dataset::open(name, &options(folder.path()));
    assert_eq!(open("rows").expect("found").records.len(), 1);
    assert_eq!(open("lines").expect("found").records, ["one", "two"].map(|text| Record::Text(text.to_owned())));
    write("rows.json", "[{\"instruction\": \"a\", \"output\": \"b\"}]");
    let [one, other] = ["rows.json", "rows.jsonl"].map(|name| folder.path().join(name).display().to_string());
    assert_eq!(
        open("rows").expect_err("two files").to_string(),
        format!("dataset rows: it could be {one} or {other}; give the whole name of the file")
    );
    assert_eq!(open("rows.jsonl").expect("found").records.len(), 1);
}
