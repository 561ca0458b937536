//! Conversations and documents into examples.

mod common;

use common::{CHATML, assistant, template, tokenizer, user};
use luthier_data::{
    Dataset, Example, Message, PtOptions, Record, Report, SftOptions, Tokenized, Truncation, tokenize_pt, tokenize_sft,
};

const OPTIONS: SftOptions =
    SftOptions { cutoff_len: 64, truncation: Truncation::LlamaFactory, train_on_prompt: false, mask_history: false };

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
    let report = Report { rows: 1, tokens: example.ids.len(), trained_tokens: 8, ..Report::default() };
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
            rows_truncated: 2,
            replies_without_end: 2,
            rows_dropped: 1,
            end_tokens_added: 0
        }
    );
    // LLaMA-Factory's way saves the short reply of the last row.
    let shared = sft(CHATML, &rows, &SftOptions { truncation: Truncation::LlamaFactory, ..right });
    assert_eq!(trained(&shared.examples[2]), "b<|im_end|>\n");
    assert_eq!((shared.report.rows_dropped, shared.report.replies_without_end), (0, 1));
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
fn documents_are_packed_into_blocks_or_kept_apart() {
    let records = || ["hello", "", "abc"].map(|text| Record::Text(text.to_owned())).into();
    let rows = |packing: bool, cutoff_len: usize| -> (Vec<String>, Report) {
        let options = PtOptions { cutoff_len, packing };
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
