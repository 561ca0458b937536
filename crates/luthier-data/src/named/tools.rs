//! How tools and their calls are written into a text, by the names that LLaMA-Factory gives to the ways: what the system
//! message tells of the tools, and how a reply calls them. JSON has Python's blanks, as the models saw it.

use serde_json::{Value, json};

use crate::conversation::ToolCall;
use crate::python_json::{dumps, dumps_indented, text};
use crate::strftime::strftime;

/// A way to write tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolFormat {
    Default,
    Gemma4,
    Glm4,
    Glm4Moe,
    Lfm2,
    Ling,
    Llama3,
    Minimax1,
    Minimax2,
    Mistral,
    Phi4Mini,
    Qwen,
    Qwen35,
    SeedOss,
}

const NAMES: [(&str, ToolFormat); 13] = [
    ("default", ToolFormat::Default),
    ("gemma4", ToolFormat::Gemma4),
    ("glm4", ToolFormat::Glm4),
    ("glm4_moe", ToolFormat::Glm4Moe),
    ("lfm2", ToolFormat::Lfm2),
    ("ling", ToolFormat::Ling),
    ("llama3", ToolFormat::Llama3),
    ("minimax1", ToolFormat::Minimax1),
    ("minimax2", ToolFormat::Minimax2),
    ("mistral", ToolFormat::Mistral),
    ("qwen", ToolFormat::Qwen),
    ("qwen3_5", ToolFormat::Qwen35),
    ("seed_oss", ToolFormat::SeedOss),
];

/// The texts around the descriptions: what stands before them, and behind.
const QWEN: [&str; 2] = [
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function \
     signatures within <tools></tools> XML tags:\n<tools>",
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
     <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
     <args-json-object>}\n</tool_call>",
];
const GLM4_MOE_END: &str = "\n</tools>\n\nFor each function call, output the function name and arguments within the following \
     XML format:\n<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n\
     <arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>\n";
const QWEN35: [&str; 2] = [
    "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>",
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n<tool_call>\n\
     <function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n\
     <parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n\
     </parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified format: \
     an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n- Required \
     parameters MUST be specified\n- You may provide optional reasoning for your function call in natural language BEFORE \
     the function call, but NOT after\n- If there is no function call available, answer the question like normal with your \
     current knowledge and do not tell the user about function calls\n</IMPORTANT>",
];
const SEED: [&str; 2] = [
    "system\nYou are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user query.Tool \
     List:\nYou are authorized to use the following tools (described in JSON Schema format). Before performing any task, \
     you must decide how to call them based on the descriptions and parameters of these tools.\n",
    "\n工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>value_1\
     </parameter>\n<parameter=example_parameter_2>This is the value for the second parameter\nthat can span\nmultiple \
     lines</parameter>\n</function>\n</seed:tool_call>\n",
];
const MINIMAX1: [&str; 2] = [
    "You are provided with these tools:\n<tools>\n",
    "</tools>\n\nIf you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide tool-name \
     and json-object of arguments, following the format below:\n<tool_calls>\n{\"name\": <tool-name-1>, \"arguments\": \
     <args-json-object-1>}\n...\n</tool_calls>",
];
const MINIMAX2: [&str; 2] = [
    "\n\n# Tools\n\nYou may call one or more tools to assist with the user query.\nHere are the tools available in \
     JSONSchema format:\n\n<tools>\n",
    "</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n<minimax:tool_call>\n\
     <invoke name=\"tool-name-1\">\n<parameter name=\"param-key-1\">param-value-1</parameter>\n<parameter \
     name=\"param-key-2\">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>",
];
const GLM4: &str = "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 \
                    模型开发的，你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具";
const GLM4_EACH: &str = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。";
const LLAMA3: &str = "You have access to the following functions. To call a function, please respond with JSON for a function \
     call. Respond in the format {\"name\": function name, \"parameters\": dictionary of argument name and its value}. Do \
     not use variables.\n\n";

/// The function that a description is of, whether or not it is wrapped as OpenAI does.
fn function(tool: &Value) -> &Value {
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => tool.get("function").unwrap_or(tool),
        _ => tool,
    }
}

/// The description as OpenAI wraps it.
fn wrapped(tool: &Value) -> Value {
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => tool.clone(),
        _ => json!({"type": "function", "function": tool}),
    }
}

/// The name of the function that a description is of.
fn name(tool: &Value) -> Result<&str, String> {
    let found = function(tool).get("name").and_then(Value::as_str);
    found.ok_or_else(|| format!("cannot describe a tool without \"name\": {}", dumps(tool)))
}

/// Whether Python counts a value as true.
fn holds(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(object)) => !object.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Bool(true)) => true,
    }
}

fn text_at(value: &Value, key: &str) -> String {
    value.get(key).map(text).unwrap_or_default()
}

/// Each of the values on a line of its own, which begins or ends it.
fn lines(tools: &[Value], before: &str, make: impl Fn(&Value) -> String, behind: &str) -> String {
    tools.iter().map(|tool| format!("{before}{}{behind}", make(tool))).collect()
}

impl ToolFormat {
    /// The way of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, format)| *format == self).map_or("phi4_mini", |(name, _)| name)
    }

    /// All names.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// What the system message tells of the tools. The error is the rest of a sentence about the template.
    pub(crate) fn describe(self, tools: &[Value], now_unix_seconds: Option<i64>) -> Result<String, String> {
        if tools.is_empty() {
            return Ok(String::new());
        }
        for tool in tools {
            name(tool)?;
        }
        let around = |[before, behind]: [&str; 2], inside: &str| format!("{before}{inside}{behind}");
        Ok(match self {
            Self::Default => describe_by_default(tools)?,
            Self::Gemma4 => tools.iter().map(describe_for_gemma).collect::<Vec<_>>().join("\n"),
            Self::Glm4 => {
                let each = |tool: &Value| {
                    let body = dumps_indented(function(tool), 4);
                    format!("\n\n## {}\n\n{body}{GLM4_EACH}", text_at(function(tool), "name"))
                };
                format!("{GLM4}{}", tools.iter().map(each).collect::<String>())
            }
            Self::Glm4Moe => around([QWEN[0], GLM4_MOE_END], &lines(tools, "\n", |tool| dumps(&wrapped(tool)), "")),
            Self::Lfm2 => {
                let list = tools.iter().map(|tool| function(tool).clone()).collect();
                format!("List of tools: <|tool_list_start|>{}<|tool_list_end|>", dumps(&Value::Array(list)))
            }
            Self::Ling => {
                let inside = lines(tools, "\n", |tool| dumps(&wrapped(tool)), "");
                around([QWEN[0].trim_start(), QWEN[1]], &inside) + "\ndetailed thinking off"
            }
            Self::Llama3 => {
                let now = now_unix_seconds.ok_or("asks for the time, and none was given")?;
                let date = strftime("%d %b %Y", now);
                let inside = lines(tools, "", |tool| dumps_indented(&wrapped(tool), 4), "\n\n");
                format!("Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n{LLAMA3}{inside}")
            }
            Self::Minimax1 => around(MINIMAX1, &lines(tools, "", |tool| dumps(function(tool)), "\n")),
            Self::Minimax2 => around(MINIMAX2, &lines(tools, "<tool>", |tool| dumps(function(tool)), "</tool>\n")),
            Self::Mistral => {
                let list = tools.iter().map(wrapped).collect();
                format!("[AVAILABLE_TOOLS] {}[/AVAILABLE_TOOLS]", dumps(&Value::Array(list)))
            }
            Self::Phi4Mini => format!("<|tool|>{}<|/tool|>", dumps(&Value::Array(tools.to_vec()))),
            Self::Qwen => around(QWEN, &lines(tools, "\n", |tool| dumps(&wrapped(tool)), "")),
            Self::Qwen35 => around(QWEN35, &lines(tools, "\n", |tool| dumps(function(tool)), "")),
            Self::SeedOss => around(SEED, &dumps(&Value::Array(tools.to_vec()))),
        })
    }

    /// How a reply calls tools. The error is the rest of a sentence about the template.
    pub(crate) fn call(self, calls: &[ToolCall]) -> Result<String, String> {
        let object = |call: &ToolCall, key: &str| json!({"name": call.name, key: call.arguments});
        let each = |between: &str, make: &dyn Fn(&ToolCall) -> String| {
            calls.iter().map(make).collect::<Vec<_>>().join(between)
        };
        Ok(match self {
            Self::Default | Self::Phi4Mini => {
                each("\n", &|call| format!("Action: {}\nAction Input: {}", call.name, dumps(&call.arguments)))
            }
            Self::Gemma4 => {
                each("", &|call| format!("<|tool_call>call:{}{}<tool_call|>", call.name, call_for_gemma(call)))
            }
            Self::Glm4 => match calls {
                [call] => format!("{}\n{}", call.name, dumps(&call.arguments)),
                _ => return Err(format!("cannot write {} calls of tools in one reply: glm4 has one", calls.len())),
            },
            Self::Glm4Moe => each("\n", &|call| {
                let pair =
                    |key: &str, value: String| format!("\n<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>");
                format!("\n<tool_call>{}{}", call.name, pairs(call, pair))
            }),
            Self::Lfm2 => {
                let one = |call: &ToolCall| {
                    let pair = |(key, value): (&String, &Value)| match value {
                        Value::String(text) => format!("{key}=\"{text}\""),
                        other => format!("{key}={}", dumps(other)),
                    };
                    let arguments = call.arguments.as_object().into_iter().flatten().map(pair);
                    format!("{}({})", call.name, arguments.collect::<Vec<_>>().join(", "))
                };
                format!("<|tool_call_start|>[{}]<|tool_call_end|>", each(", ", &one))
            }
            Self::Llama3 => match calls {
                [call] => dumps(&object(call, "parameters")),
                _ => dumps(&calls.iter().map(|call| object(call, "parameters")).collect()),
            },
            Self::Minimax1 => {
                format!("<tool_calls>\n{}\n</tool_calls>", each("\n", &|call| dumps(&object(call, "arguments"))))
            }
            Self::Minimax2 => each("\n", &|call| {
                let pair = |key: &str, value: String| format!("\n<parameter name=\"{key}\">{value}</parameter>");
                format!("<invoke name=\"{}\">{}\n</invoke>", call.name, pairs(call, pair))
            }),
            Self::Mistral => dumps(&calls.iter().map(|call| object(call, "arguments")).collect()),
            Self::Qwen | Self::Ling => {
                each("\n", &|call| format!("<tool_call>\n{}\n</tool_call>", dumps(&object(call, "arguments"))))
            }
            Self::Qwen35 => each("\n", &|call| {
                let pair = |key: &str, value: String| format!("\n<parameter={key}>\n{value}\n</parameter>");
                format!("<tool_call>\n<function={}>{}\n</function>\n</tool_call>", call.name, pairs(call, pair))
            }),
            Self::SeedOss => each("\n", &|call| {
                let pair = |key: &str, value: String| format!("\n<parameter={key}>{value}</parameter>");
                // LLaMA-Factory leaves the tag of the function open, and models that it trained do too.
                format!(
                    "\n<seed:tool_call>\n<function={}{}\n</function>\n</seed:tool_call>",
                    call.name,
                    pairs(call, pair)
                )
            }),
        })
    }
}

/// The arguments of a call, each written by `pair`; texts stand for themselves, the rest is JSON.
fn pairs(call: &ToolCall, pair: impl Fn(&str, String) -> String) -> String {
    let value = |value: &Value| value.as_str().map_or_else(|| dumps(value), str::to_owned);
    call.arguments.as_object().into_iter().flatten().map(|(key, found)| pair(key, value(found))).collect()
}

fn describe_by_default(tools: &[Value]) -> Result<String, String> {
    let mut described = String::new();
    let mut names = Vec::new();
    for tool in tools.iter().map(function) {
        let name = name(tool)?;
        names.push(name);
        described.push_str(&format!(
            "> Tool Name: {name}\nTool Description: {}\nTool Args:\n",
            text_at(tool, "description")
        ));
        let parameters = tool.get("parameters");
        let required = parameters.and_then(|found| found.get("required")).and_then(Value::as_array);
        let properties = parameters.and_then(|found| found.get("properties")).and_then(Value::as_object);
        for (name, parameter) in properties.into_iter().flatten() {
            let is_required = required.is_some_and(|required| required.iter().any(|key| key == name));
            described.push_str(&format!(
                "  - {name} ({}{}): {}",
                text_at(parameter, "type"),
                if is_required { ", required" } else { "" },
                text_at(parameter, "description")
            ));
            if let Some(Value::Array(choices)) = parameter.get("enum").filter(|found| holds(Some(found))) {
                let choices: Vec<String> = choices.iter().map(text).collect();
                described.push_str(&format!(", should be one of [{}]", choices.join(", ")));
            }
            if let Some(items) = parameter.get("items").filter(|found| holds(Some(found))) {
                described.push_str(&format!(", where each item should be {}", text_at(items, "type")));
            }
            described.push('\n');
        }
        described.push('\n');
    }
    Ok(format!(
        "You have access to the following tools:\n{described}Use the following format if using a tool:\n```\nAction: tool \
         name (one of [{}])\nAction Input: the input to the tool, in a JSON format representing the kwargs (e.g. \
         ```{{\"input\": \"hello world\", \"num_beams\": 5}}```)\n```\n",
        names.join(", ")
    ))
}

/// A text between Gemma's marks.
fn marked(text: &str) -> String {
    format!("<|\"|>{text}<|\"|>")
}

fn describe_for_gemma(tool: &Value) -> String {
    let tool = function(tool);
    let kind = |value: &Value| format!("type:{}", marked(&text_at(value, "type").to_uppercase()));
    let description = |value: &Value| format!("description:{}", marked(&text_at(value, "description")));
    let mut out = format!("declaration:{}{{{}", text_at(tool, "name"), description(tool));
    if let Some(parameters) = tool.get("parameters").filter(|found| holds(Some(found))) {
        let mut parts = Vec::new();
        if let Some(Value::Object(properties)) = parameters.get("properties").filter(|found| holds(Some(found))) {
            let property = |(name, schema): (&String, &Value)| {
                let mut parts = Vec::new();
                if holds(schema.get("description")) {
                    parts.push(description(schema));
                }
                if holds(schema.get("type")) {
                    parts.push(kind(schema));
                }
                format!("{name}:{{{}}}", parts.join(","))
            };
            parts.push(format!("properties:{{{}}}", properties.iter().map(property).collect::<Vec<_>>().join(",")));
        }
        if let Some(Value::Array(required)) = parameters.get("required").filter(|found| holds(Some(found))) {
            let required: Vec<String> = required.iter().map(|item| marked(&text(item))).collect();
            parts.push(format!("required:[{}]", required.join(",")));
        }
        if holds(parameters.get("type")) {
            parts.push(kind(parameters));
        }
        out.push_str(&format!(",parameters:{{{}}}", parts.join(",")));
    }
    if let Some(response) = tool.get("response").filter(|found| holds(Some(found))) {
        let mut parts = Vec::new();
        if holds(response.get("description")) {
            parts.push(description(response));
        }
        if text_at(response, "type").to_uppercase() == "OBJECT" {
            parts.push(kind(response));
        }
        out.push_str(&format!(",response:{{{}}}", parts.join(",")));
    }
    out + "}"
}

fn call_for_gemma(call: &ToolCall) -> String {
    match &call.arguments {
        Value::String(text) => format!("{{{text}}}"),
        object @ Value::Object(_) => argument_for_gemma(object),
        other => format!("{{{}}}", argument_for_gemma(other)),
    }
}

fn argument_for_gemma(value: &Value) -> String {
    match value {
        Value::String(text) => marked(text),
        Value::Bool(true) => "true".to_owned(),
        Value::Bool(false) => "false".to_owned(),
        Value::Null => "null".to_owned(),
        Value::Number(_) => text(value),
        Value::Array(items) => format!("[{}]", items.iter().map(argument_for_gemma).collect::<Vec<_>>().join(",")),
        Value::Object(object) => {
            let mut entries: Vec<(&String, &Value)> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entry = |(key, value): (&String, &Value)| format!("{key}:{}", argument_for_gemma(value));
            format!("{{{}}}", entries.into_iter().map(entry).collect::<Vec<_>>().join(","))
        }
    }
}
