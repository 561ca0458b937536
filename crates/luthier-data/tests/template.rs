//! Rendering as transformers does, and the places of replies.

mod common;

use common::{CHATML, assistant, gguf, system, template, tokenizer, user};
use luthier_data::{
    ChatTemplate, Error, GgufTokenizer, Message, SpecialTexts, TemplateOptions, Tokenizer, masked_text,
};

fn check(source: &str, expected: &str) {
    let rendered = template(source).render(&[user("hi"), assistant("\"yes\" & é")], &[], false).expect("renders");
    assert_eq!(rendered.text, expected);
}

/// The replies of a conversation, each with bars around it.
fn check_mask(source: &str, messages: &[Message], expected: &str) {
    let masked = masked_text(&template(source), &messages.to_vec().into()).expect("the replies are found");
    let mut out = masked.text.clone();
    for reply in masked.replies.iter().rev() {
        out.insert(reply.end, '|');
        out.insert(reply.start, '|');
    }
    assert_eq!(out, expected);
}

fn fails(source: &str, messages: &[Message], message: &str) {
    let error = masked_text(&template(source), &messages.to_vec().into()).expect_err("it is refused");
    assert_eq!(error.to_string(), message);
}

#[test]
fn renders_as_transformers_does() {
    check("{{ messages[1]['content'] | tojson }}", "\"\\\"yes\\\" & é\"");
    check("{{ {'b': 1, 'a': [1, none, true]} | tojson }}", "{\"b\": 1, \"a\": [1, null, true]}");
    check("{{ {'b': 1, 'a': []} | tojson(indent=2, sort_keys=true) }}", "{\n  \"a\": [],\n  \"b\": 1\n}");
    check("{{ 'é' | tojson(ensure_ascii=true) }}", "\"\\u00e9\"");
    check("  {% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb");
    check("{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user");
    check("{{ ' a b '.strip().split(' ')[1].upper() }}{{ 'x'.startswith('x') }}{{ none }}", "BTrueNone");
    check(
        "{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ tools is iterable }}",
        "<|im_start|><|im_end|>TrueFalse",
    );
    check("{{ strftime_now('%d %b %Y') }}", "29 Feb 2024");
    check("a{%- generation -%} b {%- endgeneration -%} c", "abc");
}

#[test]
fn replies_by_turns() {
    let conversation = [system("S"), user("a"), assistant("b"), user("c"), assistant("d")];
    check_mask(
        CHATML,
        &conversation,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n|b<|im_end|>\n|\
         <|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n|d<|im_end|>\n|",
    );
    // The conversation, not the reply, is closed with the end token: Phi-3.5.
    check_mask(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}\
         {% if add_generation_prompt %}<assistant>{% else %}{{ eos_token }}{% endif %}",
        &conversation[1..],
        "<user>a<end><assistant>|b<end>|<user>c<end><assistant>|d<end><|im_end|>|",
    );
}

#[test]
fn an_empty_thought_before_the_last_reply_only() {
    // As Qwen3's own template does.
    check_mask(
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}\
         {{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
        &[user("a"), assistant("b"), user("b"), assistant("b")],
        "<user>a<end><assistant>|b<end>|<user>b<end><assistant>|<think></think>b<end>|",
    );
    fails(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if loop.last %}<last>{% else %}<end>{% endif %}{% endfor %}\
         {% if add_generation_prompt %}<assistant>{% endif %}",
        &[user("a"), assistant("b"), user("c"), assistant("d")],
        "the chat template of test is not prefix-stable, so it is unknown which tokens belong to the reply in message 2: \
         the prompt alone is\n  \"<user>a<last><assistant>\"\nand the prompt with its reply is\n  \"<user>a<end><assistant>b<last>\"\n\
         Use a template with {% generation %} blocks, or name another one with `template`",
    );
}

#[test]
fn replies_by_generation_blocks() {
    check_mask(
        "{% for m in messages %}\n{% if m.role == 'assistant' %}\n[{% generation %}\n{{ m.content }};{% endgeneration %}\n]\n\
         {% else %}\n{{ m.content }}\n{% endif %}\n{% endfor %}",
        &[user("é"), assistant("b"), user("c"), assistant("d")],
        "é\n[|b;|]\nc\n[|d;|]\n",
    );
}

#[test]
fn what_is_not_prefix_stable_is_shown() {
    fails(
        "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}<think>{% endif %}",
        &[user("a"), assistant("b")],
        "the chat template of test is not prefix-stable, so it is unknown which tokens belong to the reply in message 2: \
         the prompt alone is\n  \"[a]<think>\"\nand the prompt with its reply is\n  \"[a][b]\"\n\
         Use a template with {% generation %} blocks, or name another one with `template`",
    );
    fails(
        "{% for m in messages %}{% if loop.last %}!{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}!{% endif %}",
        &[user("a"), assistant("b"), user("c"), assistant("d")],
        "the chat template of test is not prefix-stable, so it is unknown which tokens belong to the reply in message 2: \
         the prompt alone is\n  \"!a!\"\nand the prompt with its reply is\n  \"a!b\"\n\
         Use a template with {% generation %} blocks, or name another one with `template`",
    );
}

#[test]
fn templates_that_fail_or_do_not_end() {
    let messages = [user("a"), assistant("b")];
    fails(
        "{{ raise_exception('roles must alternate') }}",
        &messages,
        "the chat template of test refuses the conversation: roles must alternate",
    );
    fails(
        "\n{{ messages[0].name.first }}",
        &messages,
        "the chat template of test failed in line 2: undefined value: `messages[0].name` is undefined",
    );
    fails(
        "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        &messages,
        "the chat template of test did not end after 2000000 instructions",
    );
    fails(
        "{% set x = 'x' * 100000 %}{% for a in range(10000) %}{{ x }}{% endfor %}",
        &messages,
        "the chat template of test wrote more than 67108864 bytes",
    );
    fails(
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        &messages,
        "the chat template of test failed in line 1: invalid operation: recursion limit exceeded",
    );
    fails("x", &[user("a")], "the conversation has no message of the assistant, so there is nothing to train");
    let error = ChatTemplate::from_jinja("test", "{% if %}", SpecialTexts::default(), &TemplateOptions::default())
        .expect_err("it is refused");
    assert!(error.to_string().starts_with("the chat template of test does not compile: syntax error"), "{error}");
    let timeless = ChatTemplate::from_jinja(
        "test",
        "{{ strftime_now('%Y') }}",
        SpecialTexts::default(),
        &TemplateOptions::default(),
    );
    let error = timeless.and_then(|template| template.render(&messages, &[], false)).expect_err("it is refused");
    assert_eq!(
        error.to_string(),
        "the chat template of test failed in line 1: invalid operation: the template asks for the time, and none was given"
    );
}

#[test]
fn a_named_template_wins_and_a_missing_one_is_explained() {
    let choose =
        |named, tokenizer: &Tokenizer| ChatTemplate::choose(named, "tiny", tokenizer, &TemplateOptions::default());
    let own = choose(None, &tokenizer()).expect("the model has one");
    let named = choose(Some("chatml"), &tokenizer()).expect("it is known");
    let conversation = [system("S"), user("a")];
    assert_eq!(
        own.render(&conversation, &[], true).expect("renders").text,
        named.render(&conversation, &[], true).expect("renders").text
    );
    assert_eq!((named.notes(), named.replaces_own()), (&[] as &[String], false));
    let bare = Tokenizer::from_gguf(&GgufTokenizer { chat_template: None, ..gguf() }).expect("the tokenizer builds");
    let message = |result: Result<ChatTemplate, Error>| result.expect_err("it is refused").to_string();
    assert_eq!(
        message(choose(None, &bare)),
        "tiny has no chat template, so its conversations cannot be written as it expects them; set `template` to the name of \
         one (luthier template list)"
    );
    assert_eq!(
        message(choose(Some("chatmll"), &bare)),
        "template: there is no template \"chatmll\" (did you mean chatml?); expected a name of `luthier template list`, or \
         nothing for the model's own"
    );
    assert!(choose(Some("chatml"), &bare).expect("it is known").replaces_own());
}

#[test]
fn a_named_template_that_does_not_fit_the_model_says_so() {
    let llama3 =
        ChatTemplate::choose(Some("llama3"), "tiny", &tokenizer(), &TemplateOptions::default()).expect("known");
    assert!(llama3.replaces_own());
    assert_eq!(
        llama3.notes(),
        [
            "template llama3: the tokenizer of tiny has no token of its own for <|start_header_id|>, <|end_header_id|>, \
             <|eot_id|>, <|eom_id|>; they are written as text, since the vocabulary is not changed",
            "template llama3: the chat template of tiny itself writes a plain conversation differently, \
             \"<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>ass\" where llama3 has \
             \"<|im_start|><|start_header_id|>user<|end_header_\"",
        ]
    );
}

#[test]
fn templates_that_grow_without_end_run_out_of_fuel() {
    let lists = "{% set ns = namespace(l=['a']) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
    let fuel = "the chat template of test did not end after 2000000 instructions";
    for source in [
        "{% set ns = namespace(t='abcdefgh') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}"
            .to_owned(),
        "{% set ns = namespace(t='abcdefgh') %}{% for i in range(60) %}{% set ns.t %}{{ ns.t }}{{ ns.t }}{% endset %}\
         {% endfor %}"
            .to_owned(),
        "{{ range(90000)|join('b' * 1000000)|length }}".to_owned(),
        format!("{lists}{{{{ ns.l }}}}"),
        format!("{lists}{{{{ ns.l | tojson }}}}"),
        format!("{lists}{{{{ ns.l | join }}}}"),
    ] {
        let error = template(&source).render(&[user("hi")], &[], false).expect_err("it is stopped").to_string();
        assert_eq!(error, fuel, "{source}");
    }
    fails(
        "{{ '{:>9999999999}'.format(3) }}",
        &[user("hi"), assistant("b")],
        "the chat template of test failed in line 1: invalid operation: format is given a number of more than three digits",
    );
}

/// The engine would write them without end, and fill its stack.
#[test]
fn a_namespace_that_holds_itself_is_refused() {
    let conversation = [user("hi"), assistant("b")];
    let begin = "{% set ns = namespace(t=1) %}";
    for kept in ["ns", "[1, [ns]]", "{'a': ns}", "{'a': {'b': [ns]}}", "1, ns", "namespace(a=ns)", "[ns] + [1]"] {
        fails(
            &format!("{begin}{{% set ns.t = {kept} %}}{{{{ ns.t ~ ns }}}}"),
            &conversation,
            "the chat template of test failed in line 1: invalid operation: a namespace is kept in a namespace, where it could \
             hold itself",
        );
    }
    fails(
        &format!("{begin}{{% for i in range(90000) %}}{{% set ns.t = [ns.t] %}}{{% endfor %}}{{{{ ns.t }}}}"),
        &conversation,
        "the chat template of test failed in line 1: invalid operation: lists are kept in a namespace that lie too deep in one \
         another",
    );
    check(
        &format!(
            "{begin}{{% set ns.t = messages, ns.t %}}{{% set ns.u = undefined %}}{{{{ ns.t[0][0].role }}}}{{{{ ns.t[1] }}}}\
             {{% set ns.v | upper %}}x{{% endset %}}{{{{ ns.v }}}}{{{{ ns.u }}}}"
        ),
        "user1X",
    );
}

#[test]
fn a_rendering_can_be_seen_while_it_runs() {
    let long = template("{% for i in range(90000) %}{% set x = i * 2 %}{% endfor %}");
    let seen = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            for _ in 0..20 {
                long.render(&[user("hi")], &[], false).expect("it is rendered");
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        while !run.is_finished() {
            seen.extend(luthier_data::rendering());
        }
        seen.len()
    });
    assert!(seen >= 2, "{seen}");
}
