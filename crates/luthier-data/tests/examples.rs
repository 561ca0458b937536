//! Conversations and documents into examples.

mod common;

use common::{CHATML, assistant, system, template, tokenizer, user};
use luthier_data::{
    CutRow, Dataset, Example, Message, Origin, PtOptions, Record, Refused, Report, Role, RoleSpan, RoleWeights,
    SftOptions, Tokenized, ToolCall, Truncation, take_tokens, tokenize_pt, tokenize_sft,
};

const OPTIONS: SftOptions = SftOptions {
    cutoff_len: 64,
    truncation: Truncation::LlamaFactory,
    train_on_prompt: false,
    mask_history: false,
    role_weights: None,
    roles: false,
};

fn dataset(records: Vec<Record>) -> Dataset {
    Dataset { name: "chat.json".to_owned(), records, ..Dataset::default() }
}

fn sft(source: &str, conversations: &[&[Message]], options: &SftOptions) -> Tokenized {
    let records = conversations.iter().map(|messages| Record::Conversation(messages.to_vec().into())).collect();
    tokenize_sft(&[dataset(records)], &tokenizer(), &template(source), options).expect("it is tokenised")
}

/// The text of what is trained, with a bar between spans.
fn trained(example: &Example) -> String {
    let spans = example.trained.chunk_by(|a, b| a == b);
    let mut at = 0;
    let mut texts = Vec::new();
    for span in spans {
        if span[0] {
            texts.push(tokenizer().decode(&example.ids[at..at + span.len()]).expect("decodes"));
        }
        at += span.len();
    }
    texts.join("|")
}

#[test]
fn replies_with_their_end_tokens_are_trained_and_all_decodes_to_the_text() {
    let conversation = [user("hello"), assistant("hello hello"), user("x"), assistant("é")];
    let tokenized = sft(CHATML, &[&conversation], &OPTIONS);
    let example = &tokenized.examples[0];
    assert_eq!(trained(example), "hello hello<|im_end|>\n|é<|im_end|>\n");
    let text = template(CHATML).render(&conversation, &[], false).expect("renders").text;
    assert_eq!(tokenizer().decode(&example.ids).expect("decodes"), text);
    let report = Report { rows: 1, tokens: example.ids.len(), trained_tokens: 8, weight: 8.0, ..Report::default() };
    assert_eq!(tokenized.report, report);
}

#[test]
fn no_token_reaches_from_the_prompt_into_the_reply() {
    // "hello" would be one token; the border lies inside it.
    let source =
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if not add_generation_prompt %}<|im_end|>{% endif %}";
    let tokenized = sft(source, &[&[user("he"), assistant("llo")]], &OPTIONS);
    let tokens: Vec<_> = tokenized.examples[0].ids.iter().filter_map(|id| tokenizer().token(*id)).collect();
    assert_eq!(tokens, ["he", "ll", "o", "<|im_end|>"]);
    assert_eq!(tokenized.examples[0].trained, [false, true, true, true]);
}

#[test]
fn an_end_token_is_added_right_after_the_content_and_counted() {
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}\
                  {% if add_generation_prompt %}assistant: {% endif %}";
    let tokenized = sft(source, &[&[user("a"), assistant("b"), user("c"), assistant("d")]], &OPTIONS);
    assert_eq!(trained(&tokenized.examples[0]), "b<|im_end|>\n\n|d<|im_end|>\n\n");
    assert_eq!(tokenized.report.end_tokens_added, 2);
}

#[test]
fn the_end_token_behind_a_generation_block_is_trained() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}A{% generation %}{{ m.content }}{% endgeneration %}\
                  <|im_end|>.{% else %}{{ m.content }}{% endif %}{% endfor %}";
    let tokenized = sft(source, &[&[user("a"), assistant("b"), user("c"), assistant("d")]], &OPTIONS);
    assert_eq!(trained(&tokenized.examples[0]), "b<|im_end|>|d<|im_end|>");
    assert_eq!(tokenized.report.end_tokens_added, 0);
}

#[test]
fn what_is_cut_and_dropped_is_counted() {
    let long = "x".repeat(40);
    let rows: [&[Message]; 3] =
        [&[user("a"), assistant("b")], &[user("a"), assistant(&long)], &[user(&long), assistant("b")]];
    let right = SftOptions { cutoff_len: 30, truncation: Truncation::Right, ..OPTIONS };
    let tokenized = sft(CHATML, &rows, &right);
    assert_eq!(tokenized.examples.len(), 2);
    assert_eq!(
        tokenized.report,
        Report {
            rows: 2,
            tokens: 53,
            trained_tokens: 13,
            weight: 13.0,
            rows_truncated: 2,
            worst: vec![lost(1, 62, 30), lost(2, 62, 30)],
            replies_without_end: 2,
            rows_dropped: 1,
            ..Report::default()
        }
    );
    // LLaMA-Factory's way saves the short reply of the last row.
    let shared = sft(CHATML, &rows, &SftOptions { truncation: Truncation::LlamaFactory, ..right });
    assert_eq!(trained(&shared.examples[2]), "b<|im_end|>\n");
    assert_eq!((shared.report.rows_dropped, shared.report.replies_without_end), (0, 1));
}

fn lost(record: usize, before: usize, after: usize) -> CutRow {
    CutRow { origin: Origin { dataset: 0, record }, before, after }
}

#[test]
fn rows_that_are_too_long_are_left_out_or_stop_everything() {
    let long = "x".repeat(40);
    let rows: [&[Message]; 3] =
        [&[user("a"), assistant("b")], &[user("a"), assistant(&long)], &[user(&long), assistant("b")]];
    let tokenized = sft(CHATML, &rows, &SftOptions { cutoff_len: 30, truncation: Truncation::Drop, ..OPTIONS });
    assert_eq!(tokenized.origins, [Some(Origin { dataset: 0, record: 0 })]);
    assert_eq!((tokenized.report.rows_too_long, tokenized.report.rows_truncated), (2, 0));
    assert_eq!(tokenized.report.worst, [lost(1, 62, 0), lost(2, 62, 0)]);
    assert_eq!(tokenized.report.replies_without_end, 0, "what is left out teaches nothing wrong");

    let records = rows.iter().map(|messages| Record::Conversation(messages.to_vec().into())).collect();
    let options = SftOptions { cutoff_len: 30, truncation: Truncation::Error, ..OPTIONS };
    let error = tokenize_sft(&[dataset(records)], &tokenizer(), &template(CHATML), &options);
    assert_eq!(
        error.expect_err("it is refused").to_string(),
        "dataset chat.json, record 2 has 62 tokens, and cutoff_len is 30 (another record is too long too); raise \
         cutoff_len, or set truncation: right, drop or llamafactory"
    );
    let records = vec![Record::Tokens(Example::new(vec![1; 9], vec![true; 9]))];
    let taken = take_tokens(vec![dataset(records)], 8, Truncation::Drop).expect("it is taken");
    assert_eq!((taken.examples.len(), taken.report.worst), (0, vec![lost(0, 9, 0)]));
}

/// The text of every run of tokens with one weight, with the weight.
fn weighted(example: &Example) -> Vec<(String, f32)> {
    let weights: Vec<f32> = (0..example.ids.len()).map(|token| example.weight(token)).collect();
    let mut at = 0;
    let runs = weights.chunk_by(|a, b| a == b).map(|run| {
        let text = tokenizer().decode(&example.ids[at..at + run.len()]).expect("decodes");
        at += run.len();
        (text, run[0])
    });
    runs.collect()
}

#[test]
fn messages_count_by_their_role_and_by_what_their_record_says() {
    let mut rows = [
        [system("s"), user("user"), assistant("b"), user("  x "), assistant("d")],
        [system("s"), user("user"), assistant("b"), user("c"), assistant("d")],
    ];
    rows[0][2].weight = Some(0.0);
    rows[1][4].weight = Some(0.25);
    let role_weights = Some(RoleWeights { user: 0.5, ..RoleWeights::default() });
    let rows: Vec<&[Message]> = rows.iter().map(|row| row.as_slice()).collect();
    let tokenized = sft(CHATML, &rows, &SftOptions { role_weights, ..OPTIONS });
    let expected = [
        ("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n", 0.0),
        ("user<|im_end|>", 0.5),
        ("\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\n  ", 0.0),
        ("x", 0.5),
        (" <|im_end|>\n<|im_start|>assistant\n", 0.0),
        ("d<|im_end|>\n", 1.0),
    ];
    let expected: Vec<(String, f32)> = expected.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect();
    assert_eq!(weighted(&tokenized.examples[0]), expected);
    assert_eq!(weighted(&tokenized.examples[1]).last(), Some(&("d<|im_end|>\n".to_owned(), 0.25)));
    assert_eq!(tokenized.report.weighted_tokens, 5 + 1 + 5 + 2 + 3, "halves of both rows, and the quarter");
    assert_eq!(tokenized.report.weight, 0.5 * (5.0 + 1.0 + 5.0 + 2.0) + 3.0 + 3.0 + 0.25 * 3.0);
    // Weights of 1 leave nothing behind.
    let plain = sft(CHATML, &rows[..1], &OPTIONS);
    assert_eq!(plain.examples[0].weights, None);
    assert_eq!(trained(&plain.examples[0]), "d<|im_end|>\n", "the record says that the first reply does not count");
}

#[test]
fn roles_are_those_of_the_messages_and_the_rest_is_the_templates() {
    let row = [system("user"), user("user"), assistant("b"), user("c"), assistant("d")];
    let spans = |source: &str| {
        let tokenized = sft(source, &[&row], &SftOptions { roles: true, ..OPTIONS });
        let (example, mut at) = (&tokenized.examples[0], 0);
        let text = |span: &RoleSpan| {
            let text = tokenizer().decode(&example.ids[at..span.end]).expect("decodes");
            at = span.end;
            (text, span.role)
        };
        tokenized.roles[0].iter().map(text).collect::<Vec<_>>()
    };
    let expected = [
        ("<|im_start|>system\n", None),
        ("user<|im_end|>", Some(Role::System)),
        ("\n<|im_start|>user\n", None),
        ("user<|im_end|>", Some(Role::User)),
        ("\n<|im_start|>assistant\n", None),
        ("b<|im_end|>\n", Some(Role::Assistant)),
        ("<|im_start|>user\n", None),
        ("c<|im_end|>", Some(Role::User)),
        ("\n<|im_start|>assistant\n", None),
        ("d<|im_end|>\n", Some(Role::Assistant)),
    ];
    assert_eq!(spans(CHATML), expected.map(|(text, role)| (text.to_owned(), role)));
    // One that writes something else than messages say: only the replies are known.
    let changes = CHATML.replace("m['content']", "m['content'][:1]");
    let roles: Vec<_> = spans(&changes).into_iter().map(|(_, role)| role).collect();
    assert!(!roles.contains(&Some(Role::User)) && roles.contains(&Some(Role::Assistant)), "{roles:?}");
}

#[test]
fn weights_that_cannot_be_placed_are_an_error() {
    let refused = |source: &str, messages: &[Message]| {
        let role_weights = Some(RoleWeights { user: 0.5, ..RoleWeights::default() });
        let options = SftOptions { role_weights, ..OPTIONS };
        let records = vec![Record::Conversation(messages.to_vec().into())];
        tokenize_sft(&[dataset(records)], &tokenizer(), &template(source), &options).expect_err("refused").to_string()
    };
    let row = [user("a"), assistant("b")];
    assert_eq!(
        refused(&CHATML.replace("m['content']", "m['content'][:1]"), &row),
        "dataset chat.json, record 1: the chat template of test changes what messages say, so it is unknown which tokens \
         are theirs, and prompts cannot be weighed: remove role_weights, or name another template"
    );
    let mut wrong = row;
    wrong[1].weight = Some(-1.0);
    assert_eq!(
        refused(CHATML, &wrong),
        "dataset chat.json, record 1: message 2 has the weight -1; expected a number of 0 or more"
    );
}

#[test]
fn an_error_says_where_it_happened() {
    let records = vec![
        Record::Conversation(vec![user("a"), assistant("b")].into()),
        Record::Text("a".to_owned()),
        Record::Conversation(vec![user("a")].into()),
    ];
    let error = tokenize_sft(&[dataset(records)], &tokenizer(), &template(CHATML), &OPTIONS);
    assert_eq!(
        error.expect_err("it is refused").to_string(),
        "dataset chat.json, record 2: a document without roles has no reply to train; use stage: pt for documents"
    );
    let raises = template("{{ raise_exception('no') }}");
    let records = vec![Record::Conversation(vec![user("a"), assistant("b")].into())];
    let error = tokenize_sft(&[dataset(records)], &tokenizer(), &raises, &OPTIONS);
    assert_eq!(
        error.expect_err("it is refused").to_string(),
        "dataset chat.json, record 1: the chat template of test refuses the conversation: no"
    );
}

#[test]
fn what_the_template_refuses_is_left_out_and_said() {
    let source =
        ["{% if messages[0].content == 'no' %}{{ raise_exception('no ' ~ messages|length) }}{% endif %}", CHATML]
            .concat();
    let row = |text: &str| Record::Conversation(vec![user(text), assistant("b")].into());
    let read = |texts: &[&str]| {
        tokenize_sft(&[dataset(texts.iter().copied().map(row).collect())], &tokenizer(), &template(&source), &OPTIONS)
    };
    let tokenized = read(&["yes", "no", "a", "no"]).expect("half of them are written");
    assert_eq!(tokenized.examples.len(), 2);
    let problem = "the chat template of test refuses the conversation: no 2".to_owned();
    let refused = |record: usize| Refused { origin: Origin { dataset: 0, record }, problem: problem.clone() };
    assert_eq!(tokenized.refused, [refused(1), refused(3)]);
    let error = read(&["yes", "no", "no"]).expect_err("most are refused").to_string();
    assert_eq!(error, format!("dataset chat.json, record 2: {problem}"));
}

/// As Mistral's templates do.
#[test]
fn calls_get_the_ids_without_which_the_template_refuses_them() {
    let source = "{% for m in messages %}{% for c in m.tool_calls %}{% if c.id is undefined or c.id|length != 9 %}\
                  {{ raise_exception('ids have nine letters') }}{% endif %}{{ c.id }}{% endfor %}{% if m.role == 'tool' %}\
                  {{ m.tool_call_id }}{% endif %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}";
    let call = |id: Option<&str>| {
        let call = ToolCall { id: id.map(str::to_owned), ..ToolCall::new("f", serde_json::json!({})) };
        let result = Message { tool_call_id: id.map(str::to_owned), ..Message::new(Role::Tool, "x") };
        [user("a"), Message { tool_calls: vec![call], ..assistant("") }, result, assistant("é")]
    };
    let text = |conversation: &[Message]| {
        let tokenized = sft(source, &[conversation], &OPTIONS);
        let text = tokenizer().decode(&tokenized.examples[0].ids).expect("decodes");
        (text, tokenized.report.rows_with_made_ids)
    };
    assert_eq!(text(&call(Some("abcdefghi"))), ("aabcdefghi<|im_end|>abcdefghixé<|im_end|>".to_owned(), 0));
    let (made, rows) = text(&call(None));
    let id = made.get(1..10).expect("an id");
    assert_eq!((made.as_str(), rows), (format!("a{id}<|im_end|>{id}xé<|im_end|>").as_str(), 1));
    assert_eq!(text(&call(Some("call_1"))).1, 1);
}

#[test]
fn documents_are_packed_into_blocks_or_kept_apart() {
    let records = || ["hello", "", "abc"].map(|text| Record::Text(text.to_owned())).into();
    let rows = |packing: bool, cutoff_len: usize| -> (Vec<String>, Report) {
        let options = PtOptions { cutoff_len, packing, truncation: Truncation::LlamaFactory };
        let tokenized = tokenize_pt(&[dataset(records())], &tokenizer(), &options).expect("it is tokenised");
        let text = |example: &Example| tokenizer().decode(&example.ids).expect("decodes");
        (tokenized.examples.iter().map(text).collect(), tokenized.report)
    };
    let (packed, report) = rows(true, 4);
    assert_eq!(packed, ["hello<|im_end|>ab", "c<|im_end|>"]);
    assert_eq!((report.tokens, report.trained_tokens, report.rows_dropped), (6, 4, 1));
    let (apart, report) = rows(false, 3);
    assert_eq!(apart, ["hello<|im_end|>", "abc"]);
    assert_eq!((report.rows_truncated, report.replies_without_end, report.rows_dropped), (1, 1, 1));
}
