//! What holds for any conversation and any template: the trained spans are the assistant's turns with their end tokens,
//! nothing more and nothing less, and all tokens together decode to the text that the template writes. Conversations are
//! drawn from a seed, with texts that templates and tokenizers stumble over.

mod common;

use std::path::Path;

use common::{assistant, system, template, tokenizer, user};
use luthier_data::{
    ChatTemplate, Dataset, Example, Message, Record, Role, SftOptions, TemplateOptions, Tokenized, Tokenizer,
    Truncation, template_names, tokenize_sft,
};

/// Conversations for each template and tokenizer.
const CONVERSATIONS: usize = 60;

const OPTIONS: SftOptions = SftOptions {
    cutoff_len: usize::MAX,
    truncation: Truncation::LlamaFactory,
    train_on_prompt: false,
    mask_history: false,
    role_weights: None,
    roles: false,
};

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
        for turn in 0..=self.below(4) {
            // A row's first token is predicted from none; a prompt that says something is there before a reply.
            let prompt = if turn == 0 { format!("a{}", self.text()) } else { self.text() };
            messages.extend([user(&prompt), assistant(&self.text())]);
        }
        messages
    }
}

/// The tokens that end a reply.
fn end_ids(tokenizer: &Tokenizer, template: &ChatTemplate) -> Vec<u32> {
    template.end_ids(tokenizer)
}

fn builtin() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../builtin/model");
    let read = |file: &str| std::fs::read(folder.join(file)).expect("the built-in model");
    Tokenizer::from_json(&read("tokenizer.json"), Some(&read("tokenizer_config.json")), None).expect("it is read")
}

fn templates(tokenizer: &Tokenizer) -> Vec<(&'static str, ChatTemplate)> {
    let options = TemplateOptions::default();
    let choose = |name| ChatTemplate::choose(name, "test", tokenizer, &options).expect("it is chosen");
    let named = template_names().into_iter().map(|name| (name, choose(Some(name))));
    let own = tokenizer.chat_template().map(|_| ("its own", choose(None)));
    let shapes = SHAPES.map(|(name, source)| (name, template(source)));
    named.chain(own).chain(shapes).collect()
}

fn tokenized(messages: &[Message], tokenizer: &Tokenizer, template: &ChatTemplate, options: &SftOptions) -> Tokenized {
    let records = vec![Record::Conversation(messages.to_vec().into())];
    let dataset = Dataset { name: "drawn".to_owned(), records, ..Dataset::default() };
    let tokenized = tokenize_sft(&[dataset], tokenizer, template, options).expect("it is tokenised");
    let expected = usize::from(options.cutoff_len == usize::MAX);
    assert!(
        tokenized.examples.len() >= expected,
        "{}: a reply that is empty has its end token: {messages:?}",
        template.name()
    );
    tokenized
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

/// The texts that the trained spans of a conversation have.
fn trained(messages: &[Message], tokenizer: &Tokenizer, template: &ChatTemplate) -> Vec<String> {
    let example = tokenized(messages, tokenizer, template, &OPTIONS).examples.remove(0);
    assert!(!example.trained[0] && example.weights.is_none(), "the first token is predicted from none");
    runs(&example, tokenizer).into_iter().filter(|(trained, _)| *trained).map(|(_, text)| text).collect()
}

/// The texts of tokens that end a reply.
fn ends(tokenizer: &Tokenizer, template: &ChatTemplate) -> Vec<String> {
    end_ids(tokenizer, template).into_iter().filter_map(|id| tokenizer.token(id)).collect()
}

#[test]
fn the_trained_spans_are_the_replies_with_their_end_tokens() {
    for_all(|what, messages, tokenizer, template| {
        // What the template writes around replies, such as an empty thought that the model is to write itself.
        let probe = trained(&[user("a"), assistant("PROBE")], tokenizer, template).remove(0);
        let (begin, end) = probe.split_once("PROBE").expect(what);
        let ends = ends(tokenizer, template);
        assert_eq!(ends.iter().map(|token| end.matches(token.as_str()).count()).sum::<usize>(), 1, "{what}: {end:?}");
        let spans = trained(messages, tokenizer, template);
        let replies: Vec<&Message> = messages.iter().filter(|message| message.role == Role::Assistant).collect();
        // A template that writes nothing around a prompt that says nothing puts two replies side by side.
        if messages.iter().skip(2).any(|message| message.role == Role::User && message.content.trim().is_empty()) {
            let joined = |texts: &mut dyn Iterator<Item = String>| -> String {
                texts.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
            };
            let mut expected = replies.iter().map(|reply| format!("{begin}{}{end}", reply.content));
            assert_eq!(joined(&mut spans.into_iter()), joined(&mut expected), "{what}");
            return;
        }
        assert_eq!(spans.len(), replies.len(), "{what}");
        for (text, reply) in spans.iter().zip(replies) {
            let said = text.trim_start().strip_prefix(begin.trim()).map(str::trim_start).expect(what);
            let behind = said.strip_prefix(reply.content.trim()).expect(what).trim();
            assert_eq!(behind, end.trim(), "{what}: {text:?}");
        }
    });
}

#[test]
fn all_tokens_decode_to_what_the_template_writes() {
    for_all(|what, messages, tokenizer, template| {
        let tokenized = tokenized(messages, tokenizer, template, &OPTIONS);
        let text = template.render(messages, &[], false).expect(what).text;
        let found = tokenizer.decode(&tokenized.examples[0].ids).expect(what);
        let ends = ends(tokenizer, template);
        if tokenized.report.end_tokens_added == 0 {
            // Some write the end token of a reply only when the next turn begins: the last one has it nevertheless.
            assert!(
                found == text || ends.iter().any(|end| found == format!("{text}{end}")),
                "{what}: {found:?} {text:?}"
            );
        }
        // End tokens are all that may be added.
        let without_ends = |text: String| ends.iter().fold(text, |text, end| text.replace(end, ""));
        assert_eq!(without_ends(found), without_ends(text), "{what}");
    });
}

#[test]
fn every_message_is_known_by_its_role() {
    for (_, tokenizer) in [("small", tokenizer()), ("built-in", builtin())] {
        for (name, template) in templates(&tokenizer) {
            let messages = [user("apple"), assistant("pear"), user("user"), assistant("plum")];
            let tokenized = tokenized(&messages, &tokenizer, &template, &SftOptions { roles: true, ..OPTIONS });
            let (ids, mut at) = (&tokenized.examples[0].ids, 0);
            let mut said = Vec::new();
            for span in &tokenized.roles[0] {
                if let Some(role) = span.role {
                    said.push((role, tokenizer.decode(&ids[at..span.end]).expect("it decodes")));
                }
                at = span.end;
            }
            assert_eq!((said.len(), at), (4, ids.len()), "{name}: {said:?}");
            for ((role, text), message) in said.iter().zip(&messages) {
                assert!(*role == message.role && text.contains(&message.content), "{name}: {said:?}");
            }
        }
    }
}

#[test]
fn cutting_takes_from_the_ends_of_prompts_and_replies_only() {
    let tokenizer = builtin();
    for (name, template) in templates(&tokenizer) {
        let mut random = Random(7);
        for number in 0..CONVERSATIONS {
            let messages = random.conversation();
            let whole = tokenized(&messages, &tokenizer, &template, &OPTIONS).examples.remove(0);
            for truncation in [Truncation::LlamaFactory, Truncation::Right] {
                let cutoff_len = 1 + random.below(whole.ids.len() + 3);
                let options = SftOptions { cutoff_len, truncation, ..OPTIONS };
                let cut = tokenized(&messages, &tokenizer, &template, &options);
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
