//! An Ollama Modelfile beside a GGUF file. Ollama's templates are Go's, so a chat template is only translated when it is
//! one of the known formats, which is found out by rendering both and comparing the texts; others are left to Ollama's
//! reader of the GGUF file. From: Ollama, `docs/modelfile.md`, `docs/template.md`.

use luthier_data::{ChatTemplate, Message, Role, Tokenizer};

/// How a chat format writes its messages: what stands before and behind each.
struct ChatFormat {
    name: &'static str,
    system: [&'static str; 2],
    user: [&'static str; 2],
    assistant: [&'static str; 2],
    /// The system message stands within the first message of the user, after what opens that.
    system_inside: bool,
    stops: &'static [&'static str],
}

const FORMATS: &[ChatFormat] = &[
    ChatFormat {
        name: "chatml",
        system: ["<|im_start|>system\n", "<|im_end|>\n"],
        user: ["<|im_start|>user\n", "<|im_end|>\n"],
        assistant: ["<|im_start|>assistant\n", "<|im_end|>\n"],
        system_inside: false,
        stops: &["<|im_start|>", "<|im_end|>"],
    },
    ChatFormat {
        name: "llama3",
        system: ["<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"],
        user: ["<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"],
        assistant: ["<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"],
        system_inside: false,
        stops: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    },
    ChatFormat {
        name: "phi3",
        system: ["<|system|>\n", "<|end|>\n"],
        user: ["<|user|>\n", "<|end|>\n"],
        assistant: ["<|assistant|>\n", "<|end|>\n"],
        system_inside: false,
        stops: &["<|end|>", "<|user|>", "<|assistant|>"],
    },
    ChatFormat {
        name: "zephyr",
        system: ["<|system|>\n", "</s>\n"],
        user: ["<|user|>\n", "</s>\n"],
        assistant: ["<|assistant|>\n", "</s>\n"],
        system_inside: false,
        stops: &["</s>", "<|user|>", "<|system|>"],
    },
    ChatFormat {
        name: "granite",
        system: ["<|start_of_role|>system<|end_of_role|>", "<|end_of_text|>\n"],
        user: ["<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"],
        assistant: ["<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>\n"],
        system_inside: false,
        stops: &["<|end_of_text|>", "<|start_of_role|>"],
    },
    ChatFormat {
        name: "gemma",
        system: ["", "\n\n"],
        user: ["<start_of_turn>user\n", "<end_of_turn>\n"],
        assistant: ["<start_of_turn>model\n", "<end_of_turn>\n"],
        system_inside: true,
        stops: &["<start_of_turn>", "<end_of_turn>"],
    },
    ChatFormat {
        name: "mistral",
        system: ["", "\n\n"],
        user: ["[INST] ", "[/INST]"],
        assistant: [" ", "</s>"],
        system_inside: true,
        stops: &["[INST]", "[/INST]"],
    },
    ChatFormat {
        name: "mistral",
        system: ["", "\n\n"],
        user: ["[INST] ", " [/INST]"],
        assistant: [" ", "</s>"],
        system_inside: true,
        stops: &["[INST]", "[/INST]"],
    },
    ChatFormat {
        name: "mistral",
        system: ["", "\n\n"],
        user: ["[INST]", "[/INST]"],
        assistant: ["", "</s>"],
        system_inside: true,
        stops: &["[INST]", "[/INST]"],
    },
];

impl ChatFormat {
    /// What the format makes of a conversation up to the model's reply.
    fn render(&self, system: Option<&str>, turns: &[(&str, Option<&str>)]) -> String {
        let around = |text: &str, [before, behind]: [&str; 2]| format!("{before}{text}{behind}");
        let mut out = String::new();
        let mut inside = String::new();
        match system {
            Some(system) if self.system_inside => inside = around(system, self.system),
            Some(system) => out += &around(system, self.system),
            None => {}
        }
        for (user, reply) in turns {
            out += &around(&format!("{}{user}", std::mem::take(&mut inside)), self.user);
            match reply {
                Some(reply) => out += &around(reply, self.assistant),
                // Where a reply's blank belongs to the reply, the prompt ends before it.
                None => out += self.assistant[0].trim_end_matches(' '),
            }
        }
        out
    }

    /// Ollama's template: it runs once for each turn, and stops at the response of the last.
    fn go_template(&self) -> String {
        let part = |condition: &str, [before, behind]: [&str; 2]| {
            format!("{{{{ if .{condition} }}}}{before}{{{{ .{condition} }}}}{behind}{{{{ end }}}}")
        };
        let system = part("System", self.system);
        let [before, behind] = self.user;
        let asked = match self.system_inside {
            true => format!("{before}{system}{{{{ .Prompt }}}}{behind}"),
            false => format!("{system}{}", part("Prompt", self.user)),
        };
        let [reply_before, reply_behind] = self.assistant;
        format!("{asked}{}{{{{ .Response }}}}{reply_behind}", reply_before.trim_end_matches(' '))
    }
}

/// The text of a Modelfile, and what there is to say about it. A model may have a template that cannot be used.
pub(super) fn text(
    file: &str,
    has_template: bool,
    template: Option<&ChatTemplate>,
    tokenizer: &Tokenizer,
) -> (String, Vec<String>) {
    let mut text = format!("FROM ./{file}\n");
    let mut notes = Vec::new();
    // Ollama puts the begin token itself where the tokenizer does.
    let begin = tokenizer.begin_id().filter(|_| tokenizer.adds_begin());
    let begin = begin.and_then(|id| tokenizer.token(id)).unwrap_or_default();
    let found = template.and_then(|template| recognise(template, &begin));
    let mut stops: Vec<String> = Vec::new();
    match (&found, has_template) {
        (Some((format, system)), _) => {
            text += &format!("TEMPLATE \"\"\"{}\"\"\"\n", format.go_template());
            if let Some(system) = system {
                text += &format!("SYSTEM \"\"\"{system}\"\"\"\n");
            }
            stops.extend(format.stops.iter().map(|stop| (*stop).to_owned()));
            notes.push(format!("Modelfile: the chat template is {}'s, written as Ollama's TEMPLATE", format.name));
        }
        (None, true) => {
            stops.extend(tokenizer.end_ids().iter().filter_map(|id| tokenizer.token(*id)));
            notes.push(
                "Modelfile: the chat template is none of the formats known here, so TEMPLATE is left out; Ollama then looks \
                 for a template of its own by the one in the GGUF file"
                    .to_owned(),
            );
        }
        (None, false) => notes.push("Modelfile: the model has no chat template, so there is no TEMPLATE".to_owned()),
    }
    for stop in stops {
        text += &format!("PARAMETER stop {}\n", serde_json::Value::from(stop));
    }
    (text, notes)
}

/// The format that a template is, and the system message that it adds by itself.
fn recognise(template: &ChatTemplate, begin: &str) -> Option<(&'static ChatFormat, Option<String>)> {
    let render = |system: Option<&str>, turns: &[(&str, Option<&str>)]| -> Option<String> {
        let mut messages: Vec<Message> = system.into_iter().map(|text| Message::new(Role::System, text)).collect();
        for (user, reply) in turns {
            messages.push(Message::new(Role::User, *user));
            messages.extend(reply.map(|reply| Message::new(Role::Assistant, reply)));
        }
        let text = template.render(&messages, &[], true).ok()?.text;
        Some(text.strip_prefix(begin).unwrap_or(&text).to_owned())
    };
    let one = [("First question?", None)];
    let two = [("First question?", Some("The answer.")), ("Second question?", None)];
    FORMATS.iter().find_map(|format| {
        // A template may refuse system messages; then only the rest is compared.
        let with_system = render(Some("Be brief."), &two);
        if with_system.is_some_and(|text| text != format.render(Some("Be brief."), &two)) {
            return None;
        }
        let (single, several) = (render(None, &one)?, render(None, &two)?);
        if (&single, &several) == (&format.render(None, &one), &format.render(None, &two)) {
            return Some((format, None));
        }
        let system = default_system(format, &single, &one)?;
        (several == format.render(Some(&system), &two)).then_some((format, Some(system)))
    })
}

/// What stands where a system message would, although none was given.
fn default_system(format: &ChatFormat, text: &str, turns: &[(&str, Option<&str>)]) -> Option<String> {
    const MARK: &str = "\u{1}";
    let expected = format.render(Some(MARK), turns);
    let (before, behind) = expected.split_once(MARK)?;
    let system = text.strip_prefix(before)?.strip_suffix(behind)?;
    (!system.contains("\"\"\"")).then(|| system.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_data::{SpecialTexts, TemplateOptions};

    #[track_caller]
    fn check(source: &str, name: Option<&str>, system: Option<&str>) {
        let texts = SpecialTexts { begin: Some("<s>".into()), end: Some("</s>".into()) };
        let template =
            ChatTemplate::from_jinja("test", source, texts, &TemplateOptions::default()).expect("it compiles");
        let found = recognise(&template, "<s>");
        assert_eq!(found.as_ref().map(|(format, _)| format.name), name);
        assert_eq!(found.and_then(|(_, system)| system).as_deref(), system);
    }

    const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}\
                          {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn known_formats_are_recognised_by_what_they_write() {
        check(CHATML, Some("chatml"), None);
        let smollm =
            "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are Smol.<|im_end|>\n' }}{% endif %}";
        check(&format!("{smollm}{CHATML}"), Some("chatml"), Some("You are Smol."));
        check(
            "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + \
             '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
            Some("llama3"),
            None,
        );
        check(
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}\
             {{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' + m.content + '<end_of_turn>\n' }}\
             {% endfor %}{{ '<start_of_turn>model\n' }}",
            Some("gemma"),
            None,
        );
        check(
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}\
             {% elif m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}\
             {% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
            Some("mistral"),
            None,
        );
    }

    #[test]
    fn another_format_is_not_guessed() {
        check("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", None, None);
        // A thinking block in the prompt is no part of chatml.
        check(&CHATML.replace("assistant\n' }}", "assistant\n<think>\n\n</think>\n' }}"), None, None);
    }

    #[test]
    fn a_template_of_ollama() {
        assert_eq!(
            FORMATS[0].go_template(),
            "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}<|im_start|>user\n\
             {{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
        );
        let mistral = FORMATS.iter().find(|format| format.name == "mistral").expect("there");
        assert_eq!(
            mistral.go_template(),
            "[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}[/INST]{{ .Response }}</s>"
        );
    }
}
