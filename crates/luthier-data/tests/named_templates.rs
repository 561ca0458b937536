//! Named templates: what is trained, what ends it, and what settings change. That the texts are LLaMA-Factory's is compared
//! by `cargo xtask fixtures`.

mod common;

use std::sync::LazyLock;

use common::{assistant, gguf, system, user};
use luthier_data::{
    ChatTemplate, Conversation, Dataset, GgufTokenizer, Message, Record, Role, SftOptions, SpecialTexts,
    TemplateOptions, Tokenized, Tokenizer, ToolCall, Truncation, masked_text, template_facts, template_names,
    tokenize_sft,
};
use serde_json::json;

const OPTIONS: SftOptions = SftOptions {
    cutoff_len: 1 << 20,
    truncation: Truncation::LlamaFactory,
    train_on_prompt: false,
    mask_history: false,
    role_weights: None,
    roles: false,
};

/// A tokenizer that knows every token that a template of the table writes, as the models of these templates do.
static KNOWS_ALL: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut all = gguf();
    let mut add = |token: &str| {
        if !all.tokens.iter().any(|known| known == token) {
            all.tokens.push(token.to_owned());
            all.token_types.push(3);
        }
    };
    for facts in template_names().iter().filter_map(|name| template_facts(name)) {
        facts.stop_words.iter().for_each(|word| add(word));
        for (_, text) in facts.texts {
            text.split("{{token:").skip(1).for_each(|rest| add(rest.split("}}").next().expect("it is closed")));
        }
    }
    Tokenizer::from_gguf(&all).expect("the tokenizer builds")
});

fn options() -> TemplateOptions {
    TemplateOptions { now_unix_seconds: Some(1_709_210_096), ..TemplateOptions::default() }
}

fn choose(name: &str, tokenizer: &Tokenizer, options: &TemplateOptions) -> ChatTemplate {
    ChatTemplate::choose(Some(name), "tiny", tokenizer, options).expect("it is known")
}

fn tool() -> serde_json::Value {
    json!({"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "a city"}}, "required": ["city"]}}})
}

fn calls(content: &str) -> Message {
    let call = ToolCall::new("get_weather", json!({"city": "Oslo", "days": 2}));
    Message { tool_calls: vec![call], ..Message::new(Role::Assistant, content) }
}

fn thinks(thought: &str, content: &str) -> Message {
    Message { reasoning_content: Some(thought.to_owned()), ..Message::new(Role::Assistant, content) }
}

fn conversations() -> Vec<Conversation> {
    let result = Message::new(Role::Tool, "{\"temp\": 7}");
    let with_tools = |messages: Vec<Message>| Conversation { messages, tools: vec![tool()] };
    vec![
        vec![user("hello"), assistant("Hi, you!")].into(),
        vec![system("S"), user("a"), assistant("b"), user("c"), assistant("déjà vu\n")].into(),
        vec![user("  a\n"), assistant(""), user("c"), assistant("d")].into(),
        vec![user("{{content}} {{eos}}"), assistant("{{turn}}")].into(),
        vec![user("q"), thinks("so", "r"), user("q"), thinks("thus", "t")].into(),
        with_tools(vec![user("w"), calls(""), result.clone(), assistant("7 degrees")]),
        with_tools(vec![
            system("S"),
            user("w"),
            calls("Look."),
            result.clone(),
            result,
            assistant("7"),
            user("x"),
            calls(""),
        ]),
    ]
}

fn tokenized(name: &str, conversation: &Conversation, tokenizer: &Tokenizer, options: &SftOptions) -> Tokenized {
    let records = vec![Record::Conversation(conversation.clone())];
    let dataset = Dataset { name: "d".to_owned(), records, ..Dataset::default() };
    tokenize_sft(&[dataset], tokenizer, &choose(name, tokenizer, &self::options()), options).expect("it is tokenised")
}

/// Where trained tokens stand, as ranges.
fn spans(trained: &[bool]) -> Vec<std::ops::Range<usize>> {
    let mut at = 0;
    let mut found = Vec::new();
    for run in trained.chunk_by(|a, b| a == b) {
        if run[0] {
            found.push(at..at + run.len());
        }
        at += run.len();
    }
    found
}

#[test]
fn of_every_template_the_replies_with_their_end_tokens_are_trained_and_nothing_else() {
    let tokenizer = &*KNOWS_ALL;
    for name in template_names() {
        let template = choose(name, tokenizer, &options());
        let ends = template.end_ids(tokenizer);
        for (number, conversation) in conversations().iter().enumerate() {
            let place = format!("{name}, conversation {number}");
            let texts = template.turn_texts(conversation).expect("it is written").expect("it is named");
            let replies = conversation.messages.iter().filter(|message| message.role == Role::Assistant).count();
            assert_eq!(texts.len(), replies, "{place}");
            let found = tokenized(name, conversation, tokenizer, &OPTIONS);
            let example = &found.examples[0];
            let spans = spans(&example.trained);
            assert_eq!(spans.len(), replies, "{place}: {:?}", tokenizer.decode(&example.ids));
            assert_eq!(found.report.replies_without_end, 0, "{place}");
            for (span, [_, reply]) in spans.iter().zip(&texts) {
                let ids = &example.ids[span.clone()];
                let text = tokenizer.decode(ids).expect("decodes");
                // Exactly the reply, or the reply and the one token that had to end it.
                let end = ids
                    .iter()
                    .rposition(|id| ends.contains(id))
                    .unwrap_or_else(|| panic!("{place}: no end in {text:?}"));
                let without = [&ids[..end], &ids[end + 1..]].concat();
                let without = tokenizer.decode(&without).expect("decodes");
                assert!(text == *reply || without == *reply, "{place}: {text:?} is trained, the reply is {reply:?}");
                let behind = tokenizer.decode(&ids[end + 1..]).expect("decodes");
                assert!(behind.trim().is_empty() || text != *reply, "{place}: {behind:?} follows the end");
            }
            // All tokens together are the text, but for end tokens that were added.
            let whole: String = texts.concat().concat();
            let decoded = tokenizer.decode(&example.ids).expect("decodes");
            let masked = masked_text(&template, conversation).expect("it is written");
            assert_eq!(masked.text, whole, "{place}");
            if found.report.end_tokens_added == 0 && !template_facts(name).expect("known").efficient_eos {
                assert_eq!(decoded, whole, "{place}");
            }
        }
    }
}

#[test]
fn the_prompt_of_a_chat_is_the_beginning_of_a_training_row() {
    // Templates that think remove earlier thoughts when they are asked, as LLaMA-Factory does.
    let tokenizer = &*KNOWS_ALL;
    let conversation = vec![system("S"), user("a"), assistant("b"), user("c"), assistant("d")];
    for name in template_names() {
        if template_facts(name).is_some_and(|facts| facts.thinks) {
            continue;
        }
        let template = choose(name, tokenizer, &options());
        let prompt = template.prompt_ids(&conversation[..4], &[], tokenizer).expect("it is written");
        let mut row = tokenized(name, &conversation.clone().into(), tokenizer, &OPTIONS).examples.remove(0).ids;
        row.truncate(prompt.len());
        // A stop word that begins the next message ends the reply before it in both.
        assert_eq!(row, prompt, "{name}: {:?}", tokenizer.decode(&row));
    }
}

#[test]
fn its_jinja_source_writes_the_same() {
    let texts = SpecialTexts { begin: Some("<s>".to_owned()), end: Some("</s>".to_owned()) };
    let result = Message::new(Role::Tool, "{\"temp\": 7}");
    let asked: [&[Message]; 4] = [
        &[user("hello")],
        &[system("It's \\ \"S\""), user("a\nb"), assistant("b'"), user("c")],
        &[user("  x "), assistant("y"), user("z"), assistant("é"), user("?")],
        &[user("a"), assistant("b"), result],
    ];
    for name in template_names() {
        for thinking in [None, Some(false)] {
            let options = TemplateOptions { enable_thinking: thinking, ..options() };
            let named = ChatTemplate::named(name, texts.clone(), &options).expect("known");
            let source = named.jinja_source();
            let jinja = ChatTemplate::from_jinja(name, &source, texts.clone(), &options).expect("it compiles");
            for messages in asked {
                let [expected, found] =
                    [&named, &jinja].map(|template| template.render(messages, &[], true).expect("renders").text);
                assert_eq!(found, expected, "{name}: {source}");
            }
        }
        let options = options();
        let named = ChatTemplate::named(name, texts.clone(), &options).expect("known");
        let jinja =
            ChatTemplate::from_jinja(name, &named.jinja_source(), texts.clone(), &options).expect("it compiles");
        let error = jinja.render(&[user("a")], &[tool()], true).expect_err("tools are refused");
        let message = format!(
            "the chat template of {name} refuses the conversation: the template {name} is written here without tools"
        );
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_model_with_a_template_that_luthier_wrote_has_the_named_one() {
    let source = choose("glm4", &KNOWS_ALL, &options()).jinja_source();
    let model = Tokenizer::from_gguf(&gguf()).expect("the tokenizer builds").with_chat_template(source.clone());
    let found = ChatTemplate::choose(None, "tuned", &model, &options()).expect("it has one");
    let conversation = Conversation { messages: vec![user("w"), calls("")], tools: vec![tool()] };
    let written = found.turn_texts(&conversation).expect("it is written").expect("it is named");
    assert_eq!(written[0][1], "get_weather\n{\"city\": \"Oslo\", \"days\": 2}");
    // One that somebody changed is what it says it is.
    let changed = Tokenizer::from_gguf(&gguf()).expect("the tokenizer builds").with_chat_template(source + "!");
    let found = ChatTemplate::choose(None, "tuned", &changed, &options()).expect("it has one");
    assert!(found.render(&[user("a")], &[], true).expect("renders").text.ends_with("<|assistant|>!"));
}

fn turns(name: &str, options: &TemplateOptions, messages: Vec<Message>) -> Vec<[String; 2]> {
    let template = ChatTemplate::named(name, SpecialTexts::default(), options).expect("known");
    template.turn_texts(&messages.into()).expect("it is written").expect("it is named")
}

#[test]
fn thoughts_are_written_trained_or_removed() {
    let messages = || vec![user("q"), thinks("so", "r"), user("q"), assistant("s")];
    let prompt = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
    let [first, second] = &turns("qwen3", &options(), messages())[..] else { panic!("two turns") };
    assert_eq!(first, &[prompt, "<think>\nso\n</think>\n\nr<|im_end|>\n"]);
    assert_eq!(second, &[prompt, "<think>\n\n</think>\n\ns<|im_end|>\n"]);
    let off = TemplateOptions { enable_thinking: Some(false), ..options() };
    let given = format!("{prompt}<think>\n\n</think>\n\n");
    for turn in turns("qwen3", &off, messages()) {
        assert_eq!(turn[0], given);
        assert!(!turn[1].contains("think"), "{turn:?}");
    }
    // A template that does not think writes what the data has, and adds nothing.
    assert_eq!(turns("qwen3_nothink", &options(), messages())[1][1], "s<|im_end|>\n");
    assert_eq!(turns("glm4_7", &options(), messages())[1][1], "</think>\ns");
}

#[test]
fn only_the_last_thought_stays_where_only_the_last_reply_is_trained() {
    let tokenizer = &*KNOWS_ALL;
    let conversation: Conversation = vec![user("q"), thinks("so", "r"), user("q"), thinks("thus", "s")].into();
    let found = tokenized("qwen3", &conversation, tokenizer, &SftOptions { mask_history: true, ..OPTIONS });
    let text = tokenizer.decode(&found.examples[0].ids).expect("decodes");
    assert_eq!(
        text,
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nr<|im_end|>\n\
         <|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>\nthus\n</think>\n\ns<|im_end|>\n"
    );
}

#[test]
fn system_message_and_tool_format_can_be_set() {
    let set = TemplateOptions {
        default_system: Some("Be brief.".to_owned()),
        tool_format: Some("mistral".to_owned()),
        ..options()
    };
    let template = ChatTemplate::named("qwen", SpecialTexts::default(), &set).expect("known");
    let conversation = Conversation { messages: vec![user("w"), calls("")], tools: vec![tool()] };
    let turns = template.turn_texts(&conversation).expect("it is written").expect("it is named");
    assert!(
        turns[0][0].starts_with("<|im_start|>system\nBe brief.[AVAILABLE_TOOLS] [{\"type\": \"function\""),
        "{turns:?}"
    );
    assert_eq!(turns[0][1], "[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 2}}]");
    let wrong = TemplateOptions { tool_format: Some("mistrall".to_owned()), ..options() };
    let error = ChatTemplate::named("qwen", SpecialTexts::default(), &wrong).expect_err("it is refused");
    assert!(
        error.to_string().starts_with("tool_format: there is no format \"mistrall\"; expected one of default,"),
        "{error}"
    );
}

#[test]
fn an_unknown_end_marker_gets_the_end_token_of_the_tokenizer() {
    let gguf = GgufTokenizer { chat_template: None, ..gguf() };
    let tokenizer = Tokenizer::from_gguf(&gguf).expect("the tokenizer builds");
    let found = tokenized("llama3", &vec![user("a"), assistant("b")].into(), &tokenizer, &OPTIONS);
    let ids = &found.examples[0].ids;
    let spans = spans(&found.examples[0].trained);
    let text = tokenizer.decode(&ids[spans[0].clone()]).expect("decodes");
    assert_eq!((text.as_str(), found.report.end_tokens_added), ("b<|im_end|><|eot_id|>", 1));
}

#[test]
fn messages_that_do_not_take_turns_are_refused() {
    let check = |messages: Vec<Message>, expected: &str| {
        let template = ChatTemplate::named("qwen", SpecialTexts::default(), &options()).expect("known");
        let error = masked_text(&template, &messages.into()).expect_err("it is refused");
        assert_eq!(error.to_string(), format!("the chat template of qwen {expected}"));
    };
    check(
        vec![user("a"), user("b"), assistant("c")],
        "needs messages that take turns, but message 2 is a message of the user after another without a reply",
    );
    check(
        vec![user("a"), assistant("b"), assistant("c")],
        "needs messages that take turns, but message 3 is a reply after another",
    );
    check(vec![assistant("a")], "needs a message of the user before the reply in message 1");
    check(vec![user("a"), system("b"), assistant("c")], "has no place for the system message 2: it must be the first");
    let template = ChatTemplate::named("qwen", SpecialTexts::default(), &options()).expect("known");
    let error = template.render(&[user("a"), assistant("b")], &[], true).expect_err("it is refused");
    assert_eq!(
        error.to_string(),
        "the chat template of qwen needs a message to reply to, and the conversation ends without one"
    );
}
