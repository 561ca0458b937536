//! What holds for any conversation and any template: the trained spans are the assistant's turns with their end tokens,
//! nothing more and nothing less, and all tokens together decode to the text that the template writes. Conversations are
//! drawn from a seed, with texts that templates and tokenizers stumble over.

mod common;

use std::path::Path;

use common::{assistant, system, template, tokenizer, user};
use luthier_data::{
    ChatTemplate, Dataset, Example, Message, Record, Role, SftOptions, TemplateOptions, Tokenizer, Truncation,
    masked_text, tokenize_sft,
};

/// Conversations for each template and tokenizer.
const CONVERSATIONS: usize = 150;

const OPTIONS: SftOptions = SftOptions {
    cutoff_len: usize::MAX,
    truncation: Truncation::LlamaFactory,
    train_on_prompt: false,
    mask_history: false,
    role_weights: None,
    roles: false,
};

/// Templates that are built in, by name.
const NAMED: [&str; 1] = ["chatml"];

/// Templates of every shape that models have: a system message of their own, one that stands in the first turn, blocks
/// that mark replies, texts that are trimmed, an end token that nothing follows, none at all.
const SHAPES: [(&str, &str); 6] = [
    (
        "a system message of its own",
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}\
         {% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    (
        "the system message in the first turn",
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}\
         {% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}\
         {% for m in turns %}{% if m['role'] == 'user' %}[INST] {{ (system if loop.first else '') + m['content'] }} [/INST]\
         {% else %} {{ m['content'] }}<|im_end|>{% endif %}{% endfor %}",
    ),
    (
        "blocks that mark replies",
        "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>bot\n{% generation %}{{ m['content'] }}\
         <|im_end|>{% endgeneration %}\n{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}\
         {% endfor %}{% if add_generation_prompt %}<|im_start|>bot\n{% endif %}",
    ),
    (
        "texts that are trimmed",
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}",
    ),
    (
        "an end token that nothing follows",
        "{% for m in messages %}{{ m['role'] | upper }}: {{ m['content'] }}{{ eos_token }}{% endfor %}\
         {% if add_generation_prompt %}ASSISTANT: {% endif %}",
    ),
    (
        "no end token",
        "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n\n{% endfor %}\
         {% if add_generation_prompt %}### assistant:\n{% endif %}",
    ),
];

/// A generator of numbers that a seed decides: Knuth's MMIX constants.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 28] = [
            "hello",
            " hello",
            "he",
            "ll",
            "user",
            "assistant",
            "system",
            "\n",
            "\n\n",
            " ",
            "  ",
            "\t",
            "é",
            "日本語",
            "👩‍👩‍👧",
            "{{ m }}",
            "{% endfor %}",
            "<|im_start|",
            "[INST]",
            "### user:",
            "\u{a0}",
            "'s",
            "123",
            "\\n",
            "\"",
            "\u{301}",
            "<",
            "_",
        ];
        let count = self.below(7);
        (0..count).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }

    fn conversation(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if self.below(2) == 0 {
            messages.push(system(&self.text()));
        }
        for _ in 0..=self.below(4) {
            messages.extend([user(&self.text()), assistant(&self.text())]);
        }
        messages
    }
}

fn builtin() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../builtin/model");
    let read = |file: &str| std::fs::read(folder.join(file)).expect("the built-in model");
    Tokenizer::from_json(&read("tokenizer.json"), Some(&read("tokenizer_config.json")), None).expect("it is read")
}

fn templates(tokenizer: &Tokenizer) -> Vec<(&'static str, ChatTemplate)> {
    let named = NAMED.map(|name| {
        (name, ChatTemplate::choose(Some(name), "test", tokenizer, &TemplateOptions::default()).expect(name))
    });
    let own = tokenizer
        .chat_template()
        .map(|_| ChatTemplate::choose(None, "test", tokenizer, &TemplateOptions::default()).expect("its own"));
    let shapes = SHAPES.map(|(name, source)| (name, template(source)));
    named.into_iter().chain(own.map(|own| ("its own", own))).chain(shapes).collect()
}

fn tokenized(messages: &[Message], tokenizer: &Tokenizer, template: &ChatTemplate, options: &SftOptions) -> Example {
    let records = vec![Record::Conversation(messages.to_vec().into())];
    let dataset =
        Dataset { name: "drawn".to_owned(), file: Default::default(), records, ignored_keys: Default::default() };
    let mut tokenized = tokenize_sft(&[dataset], tokenizer, template, options).expect("it is tokenised");
    assert_eq!(tokenized.examples.len(), 1, "a reply that is empty has its end token");
    tokenized.examples.remove(0)
}

/// The texts of the runs of tokens that are trained alike.
fn runs(example: &Example, tokenizer: &Tokenizer) -> Vec<(bool, String)> {
    let mut at = 0;
    let runs = example.trained.chunk_by(|one, other| one == other).map(|run| {
        let text = tokenizer.decode(&example.ids[at..at + run.len()]).expect("it decodes");
        at += run.len();
        (run[0], text)
    });
    runs.collect()
}

/// Every conversation with every template and tokenizer.
fn for_all(check: impl Fn(&str, &[Message], &Tokenizer, &ChatTemplate)) {
    for (which, tokenizer) in [("small", tokenizer()), ("built-in", builtin())] {
        for (name, template) in templates(&tokenizer) {
            let mut random = Random(42);
            for number in 0..CONVERSATIONS {
                let messages = random.conversation();
                check(
                    &format!("{which} tokenizer, {name}, conversation {number}: {messages:?}"),
                    &messages,
                    &tokenizer,
                    &template,
                );
            }
        }
    }
}

#[test]
fn the_trained_spans_are_the_replies_with_their_end_tokens() {
    for_all(|what, messages, tokenizer, template| {
        let example = tokenized(messages, tokenizer, template, &OPTIONS);
        let end = tokenizer.token(tokenizer.end_ids()[0]).expect("an end token");
        let trained: Vec<String> =
            runs(&example, tokenizer).into_iter().filter(|(trained, _)| *trained).map(|(_, text)| text).collect();
        let replies: Vec<&Message> = messages.iter().filter(|message| message.role == Role::Assistant).collect();
        assert_eq!(trained.len(), replies.len(), "{what}");
        for (text, reply) in trained.iter().zip(replies) {
            let said = reply.content.trim();
            let (before, after) = text.split_once(said).expect(what);
            assert!(before.trim().is_empty(), "{what}: {text:?}");
            let (blank, rest) = after.split_once(&end).expect(what);
            assert!(blank.trim().is_empty() && rest.trim().is_empty(), "{what}: {text:?}");
        }
        assert!(!example.trained[0] && example.weights.is_none(), "{what}");
    });
}

#[test]
fn all_tokens_decode_to_what_the_template_writes() {
    for_all(|what, messages, tokenizer, template| {
        let example = tokenized(messages, tokenizer, template, &OPTIONS);
        let text = template.render(messages, &[], false).expect(what).text;
        let end = tokenizer.token(tokenizer.end_ids()[0]).expect("an end token");
        // Where the template writes no end token, those that were added stand between; nothing else does.
        let text = if text.contains(&end) { text } else { with_ends(messages, template, &end) };
        assert_eq!(tokenizer.decode(&example.ids).expect(what), text, "{what}");
    });
}

/// The text with an end token behind what each reply says.
fn with_ends(messages: &[Message], template: &ChatTemplate, end: &str) -> String {
    let masked = masked_text(template, &messages.to_vec().into()).expect("it is masked");
    let replies = messages.iter().filter(|message| message.role == Role::Assistant);
    let (mut text, mut at) = (String::new(), 0);
    for (span, reply) in masked.replies.iter().zip(replies) {
        let whole = &masked.text[span.clone()];
        let said = match reply.content.is_empty() {
            true => whole.trim_end().len(),
            false => reply.content.len(),
        };
        text += &masked.text[at..span.start + said];
        text += end;
        at = span.start + said;
    }
    text + &masked.text[at..]
}

#[test]
fn cutting_takes_from_the_ends_of_prompts_and_replies_only() {
    let tokenizer = builtin();
    for (name, template) in templates(&tokenizer) {
        let mut random = Random(7);
        for number in 0..CONVERSATIONS {
            let messages = random.conversation();
            let whole = tokenized(&messages, &tokenizer, &template, &OPTIONS);
            for truncation in [Truncation::LlamaFactory, Truncation::Right] {
                let cutoff_len = 1 + random.below(whole.ids.len() + 3);
                let options = SftOptions { cutoff_len, truncation, ..OPTIONS };
                let records = vec![Record::Conversation(messages.clone().into())];
                let dataset = Dataset {
                    name: "drawn".to_owned(),
                    file: Default::default(),
                    records,
                    ignored_keys: Default::default(),
                };
                let cut = tokenize_sft(&[dataset], &tokenizer, &template, &options).expect("it is tokenised");
                let what = format!("{name}, conversation {number}, {truncation:?} at {cutoff_len}");
                let is_cut = whole.ids.len() > cutoff_len;
                assert_eq!(cut.report.rows_truncated, usize::from(is_cut), "{what}");
                assert_eq!(cut.report.worst.len(), usize::from(is_cut), "{what}");
                let Some(example) = cut.examples.first() else {
                    assert_eq!((cut.report.rows_dropped, is_cut), (1, true), "{what}");
                    continue;
                };
                if !is_cut {
                    assert_eq!(example, &whole, "{what}");
                    continue;
                }
                // The budget is used up, save where rounding leaves a token of a turn.
                assert!(example.ids.len() <= cutoff_len && example.ids.len() + 1 >= cutoff_len, "{what}");
                // What is left are beginnings of what was there, in order, trained as before.
                let mut rest = whole.ids.iter().zip(&whole.trained);
                for pair in example.ids.iter().zip(&example.trained) {
                    assert!(rest.any(|other| other == pair), "{what}");
                }
                if truncation == Truncation::Right {
                    assert_eq!(example.ids, whole.ids[..cutoff_len], "{what}");
                }
            }
        }
    }
}
