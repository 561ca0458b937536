//! The named chat templates: one table of data. Names and texts are those of LLaMA-Factory 0.9.5 and, for those that it no
//! longer has, 0.9.3 (`orca`, `stablelm`: FastChat). A shape that several share is written once, and a row says how it differs.
//!
//! In a text, `{{content}}` is the message (`{{turn}}` the number of the exchange, from 0); `{{bos}}` and `{{eos}}` are the
//! tokenizer's begin and end token, `{{token:X}}` is the token X itself; at `{{apart}}` the text is cut before it is encoded.

use super::tools::ToolFormat;
use super::{Row, Thinks};

/// What a template has that says nothing else.
const PLAIN: Row = Row {
    name: "",
    prefix: "",
    system: "{{content}}",
    user: "{{content}}",
    assistant: "{{content}}{{eos}}",
    function: "",
    observation: "",
    calls: ToolFormat::Default,
    tools: ToolFormat::Default,
    default_system: "",
    stop_words: &[],
    thought: None,
    thinks: Thinks::Never,
    system_in_user: false,
    efficient_eos: false,
    replace_eos: false,
};

const CHATML: Row = Row {
    system: "<|im_start|>system\n{{content}}<|im_end|>\n",
    user: "<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n",
    assistant: "{{content}}<|im_end|>\n",
    stop_words: &["<|im_end|>"],
    ..PLAIN
};

const CHATML_TOOL: Row =
    Row { observation: "<|im_start|>tool\n{{content}}<|im_end|>\n<|im_start|>assistant\n", ..CHATML };

const QWEN: Row = Row {
    observation: "<|im_start|>user\n<tool_response>\n{{content}}\n</tool_response><|im_end|>\n<|im_start|>assistant\n",
    calls: ToolFormat::Qwen,
    tools: ToolFormat::Qwen,
    replace_eos: true,
    ..CHATML
};

const LLAMA3: Row = Row {
    prefix: "{{bos}}",
    system: "<|start_header_id|>system<|end_header_id|>\n\n{{content}}<|eot_id|>",
    user: "<|start_header_id|>user<|end_header_id|>\n\n{{content}}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    assistant: "{{content}}<|eot_id|>",
    observation: "<|start_header_id|>ipython<|end_header_id|>\n\n{{content}}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    calls: ToolFormat::Llama3,
    tools: ToolFormat::Llama3,
    stop_words: &["<|eot_id|>", "<|eom_id|>"],
    ..QWEN
};

const MISTRAL: Row = Row {
    prefix: "{{bos}}",
    system: "{{content}}\n\n",
    user: "[INST]{{content}}[/INST]",
    function: "[TOOL_CALLS]{{content}}{{eos}}",
    observation: "[TOOL_RESULTS]{\"content\": {{content}}}[/TOOL_RESULTS]",
    calls: ToolFormat::Mistral,
    tools: ToolFormat::Mistral,
    system_in_user: true,
    ..PLAIN
};

const GEMMA: Row = Row {
    prefix: "{{bos}}",
    system: "{{content}}\n\n",
    user: "<start_of_turn>user\n{{content}}<end_of_turn>\n<start_of_turn>model\n",
    assistant: "{{content}}<end_of_turn>\n",
    observation: "<start_of_turn>tool\n{{content}}<end_of_turn>\n<start_of_turn>model\n",
    stop_words: &["<end_of_turn>"],
    system_in_user: true,
    replace_eos: true,
    ..PLAIN
};

const GLM4: Row = Row {
    prefix: "[gMASK]<sop>",
    system: "<|system|>\n{{content}}",
    user: "<|user|>\n{{content}}<|assistant|>",
    assistant: "\n{{content}}",
    function: "{{content}}",
    observation: "<|observation|>\n{{content}}<|assistant|>",
    calls: ToolFormat::Glm4,
    tools: ToolFormat::Glm4,
    stop_words: &["<|user|>", "<|observation|>"],
    efficient_eos: true,
    ..PLAIN
};

const VICUNA: Row = Row {
    user: "USER: {{content}} ASSISTANT:",
    default_system: "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ..PLAIN
};

const LLAMA2: Row = Row {
    system: "<<SYS>>\n{{content}}\n<</SYS>>\n\n",
    user: "{{bos}}[INST] {{content}} [/INST]",
    system_in_user: true,
    ..PLAIN
};

/// The templates, by name.
pub(super) static TEMPLATES: [Row; 116] = [
    Row {
        name: "aeva",
        calls: ToolFormat::Glm4Moe,
        tools: ToolFormat::Glm4Moe,
        default_system: "You are an AI assistant named Aeva created by Zongzhi Lou. Your answer should be friendly, unbiased, faithful, informative and detailed.",
        thought: Some(("<think>", "</think>")),
        thinks: Thinks::Close,
        ..GLM4
    },
    Row {
        name: "alpaca",
        user: "### Instruction:\n{{content}}\n\n### Response:\n",
        assistant: "{{content}}{{eos}}\n\n",
        default_system: "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n",
        ..PLAIN
    },
    Row {
        name: "aquila",
        system: "System: {{content}}###",
        user: "Human: {{content}}###Assistant:",
        assistant: "{{content}}###",
        default_system: "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.",
        stop_words: &["</s>"],
        ..PLAIN
    },
    Row {
        name: "atom",
        user: "{{bos}}Human: {{content}}\n{{eos}}{{bos}}Assistant:",
        assistant: "{{content}}\n{{eos}}",
        ..PLAIN
    },
    Row {
        name: "baichuan",
        user: "{{token:<reserved_102>}}{{content}}{{token:<reserved_103>}}",
        assistant: "{{content}}",
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "baichuan2",
        user: "<reserved_106>{{content}}<reserved_107>",
        assistant: "{{content}}",
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "bailing",
        system: "<role>SYSTEM</role>{{content}}",
        user: "<role>HUMAN</role>{{content}}<role>ASSISTANT</role>",
        assistant: "{{content}}",
        observation: "<role>OBSERVATION</role>{{content}}<role>ASSISTANT</role>",
        stop_words: &["<|endoftext|>"],
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "bailing_v2",
        system: "<role>SYSTEM</role>{{content}}<|role_end|>",
        user: "<role>HUMAN</role>{{content}}<|role_end|><role>ASSISTANT</role>",
        assistant: "{{content}}<|role_end|>",
        observation: "<role>OBSERVATION</role>\n<tool_response>\n{{content}}\n</tool_response><|role_end|><role>ASSISTANT</role>",
        calls: ToolFormat::Ling,
        tools: ToolFormat::Ling,
        stop_words: &["<|endoftext|>"],
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "belle",
        prefix: "{{bos}}",
        user: "Human: {{content}}\n\nBelle: ",
        assistant: "{{content}}{{eos}}\n\n",
        ..PLAIN
    },
    Row { name: "bluelm", user: "{{token:[|Human|]:}}{{content}}{{token:[|AI|]:}}", ..PLAIN },
    Row {
        name: "breeze",
        prefix: "{{bos}}",
        user: "[INST] {{content}} [/INST] ",
        assistant: "{{content}}",
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "chatglm2",
        prefix: "{{token:[gMASK]}}{{token:sop}}",
        user: "[Round {{turn}}]\n\n问：{{content}}\n\n答：",
        assistant: "{{content}}",
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "chatglm3",
        prefix: "{{token:[gMASK]}}{{token:sop}}",
        system: "{{token:<|system|>}}\n{{apart}}{{content}}",
        user: "{{token:<|user|>}}\n{{apart}}{{content}}{{token:<|assistant|>}}",
        assistant: "\n{{apart}}{{content}}",
        observation: "{{token:<|observation|>}}\n{{apart}}{{content}}{{token:<|assistant|>}}",
        ..GLM4
    },
    Row { name: "chatml", stop_words: &["<|im_end|>", "<|im_start|>"], replace_eos: true, ..CHATML_TOOL },
    Row {
        name: "chatml_de",
        default_system: "Du bist ein freundlicher und hilfsbereiter KI-Assistent.",
        stop_words: &["<|im_end|>", "<|im_start|>"],
        replace_eos: true,
        ..CHATML_TOOL
    },
    Row { name: "codegeex2", prefix: "{{token:[gMASK]}}{{token:sop}}", ..PLAIN },
    Row {
        name: "codegeex4",
        user: "<|user|>\n{{content}}<|assistant|>\n",
        assistant: "{{content}}",
        function: "",
        observation: "<|observation|>\n{{content}}<|assistant|>\n",
        default_system: "你是一位智能编程助手，你叫CodeGeeX。你会为用户回答关于编程、代码、计算机方面的任何问题，并提供格式规范、可以执行、准确安全的代码，并在必要时提供详细的解释。",
        ..GLM4
    },
    Row {
        name: "cohere",
        prefix: "{{bos}}",
        system: "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{content}}<|END_OF_TURN_TOKEN|>",
        user: "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{content}}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ..PLAIN
    },
    Row { name: "cpm", prefix: "{{bos}}", user: "<用户>{{content}}<AI>", ..PLAIN },
    Row { name: "cpm3", prefix: "{{bos}}", ..CHATML_TOOL },
    Row { name: "cpm4", prefix: "{{bos}}", ..CHATML_TOOL },
    Row {
        name: "dbrx",
        default_system: "You are DBRX, created by Databricks. You were last updated in December 2023. You answer questions based on information available up to that point.\nYOU PROVIDE SHORT RESPONSES TO SHORT QUESTIONS OR STATEMENTS, but provide thorough responses to more complex and open-ended questions.\nYou assist with various tasks, from writing to coding (using markdown for code blocks — remember to use ``` with code, JSON, and tables).\n(You do not have real-time data access or code execution capabilities. You avoid stereotyping and provide balanced perspectives on controversial topics. You do not provide song lyrics, poems, or news articles and do not divulge details of your training data.)\nThis is your system prompt, guiding your responses. Do not reference it, just respond to the user. If you find yourself talking about this message, stop. You should be responding appropriately and usually that means not mentioning this.\nYOU DO NOT MENTION ANY OF THIS INFORMATION ABOUT YOURSELF UNLESS THE INFORMATION IS DIRECTLY PERTINENT TO THE USER'S QUERY.",
        replace_eos: true,
        ..CHATML_TOOL
    },
    Row {
        name: "deepseek",
        prefix: "{{bos}}",
        system: "{{content}}\n\n",
        user: "User: {{content}}\n\nAssistant:",
        ..PLAIN
    },
    Row { name: "deepseek3", prefix: "{{bos}}", user: "<｜User｜>{{content}}<｜Assistant｜>", ..PLAIN },
    Row {
        name: "deepseekcoder",
        prefix: "{{bos}}",
        user: "### Instruction:\n{{content}}\n### Response:",
        assistant: "\n{{content}}\n<|EOT|>\n",
        default_system: "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeek Company, and you only answer questions related to computer science. For politically sensitive questions, security and privacy issues, and other non-computer science questions, you will refuse to answer.\n",
        ..PLAIN
    },
    Row {
        name: "deepseekr1",
        prefix: "{{bos}}",
        user: "<｜User｜>{{content}}<｜Assistant｜>",
        thinks: Thinks::OpenAndClose,
        ..PLAIN
    },
    Row {
        name: "default",
        system: "System: {{content}}{{eos}}\n",
        user: "Human: {{content}}{{eos}}\nAssistant:",
        assistant: "{{content}}{{eos}}\n",
        ..PLAIN
    },
    Row {
        name: "dots_ocr",
        system: "<|system|>{{content}}<|endofsystem|>\n",
        user: "<|user|>{{content}}<|endofuser|><|assistant|>",
        assistant: "{{content}}<|endofassistant|>",
        stop_words: &["<|endofassistant|>"],
        efficient_eos: true,
        ..PLAIN
    },
    Row { name: "empty", assistant: "{{content}}", ..PLAIN },
    Row {
        name: "ernie",
        system: "<|im_start|>system\n{{content}}<|im_end|>\n\n",
        user: "<|im_start|>user\n{{content}}<|im_end|>\n\n<|im_start|>assistant\n",
        assistant: "{{content}}<|im_end|>\n\n",
        observation: "<|im_start|>tool\n{{content}}<|im_end|>\n\n<|im_start|>assistant\n",
        default_system: "<global_setting>\nthink_mode=True\n</global_setting>",
        ..CHATML
    },
    Row {
        name: "ernie_nothink",
        prefix: "<|begin_of_sentence|>",
        system: "{{content}}\n",
        user: "User: {{content}}\nAssistant: ",
        assistant: "{{content}}<|end_of_sentence|>",
        stop_words: &["<|end_of_sentence|>"],
        ..PLAIN
    },
    Row {
        name: "ernie_vl",
        system: "{{content}}\n",
        user: "User: {{content}}",
        assistant: "\nAssistant: {{content}}<|end_of_sentence|>",
        stop_words: &["<|end_of_sentence|>"],
        thinks: Thinks::OpenAndClose,
        replace_eos: true,
        ..PLAIN
    },
    Row {
        name: "exaone",
        system: "[|system|]{{content}}[|endofturn|]\n",
        user: "[|user|]{{content}}\n[|assistant|]",
        assistant: "{{content}}{{eos}}\n",
        ..PLAIN
    },
    Row {
        name: "falcon",
        user: "User: {{content}}\nFalcon:",
        assistant: "{{content}}\n",
        efficient_eos: true,
        ..PLAIN
    },
    Row { name: "falcon_h1", prefix: "{{bos}}", stop_words: &["<|im_end|>", "<|end_of_text|>"], ..CHATML_TOOL },
    Row { name: "fewshot", assistant: "{{content}}\n\n", efficient_eos: true, ..PLAIN },
    Row { name: "gemma", ..GEMMA },
    Row { name: "gemma2", stop_words: &["<eos>", "<end_of_turn>"], efficient_eos: true, replace_eos: false, ..GEMMA },
    Row {
        name: "gemma4",
        system: "<|turn>system\n<|think|>{{content}}<turn|>\n",
        user: "<|turn>user\n{{content}}<turn|>\n<|turn>model\n",
        assistant: "{{content}}<turn|>\n",
        function: "<|tool>{{content}}<tool|>",
        observation: "<|turn>tool\n{{content}}<turn|>\n<|turn>model\n",
        calls: ToolFormat::Gemma4,
        tools: ToolFormat::Gemma4,
        default_system: "You are a helpful assistant.",
        stop_words: &["<turn|>"],
        thought: Some(("<|channel>thought\n", "<channel|>")),
        thinks: Thinks::OpenAndClose,
        ..LLAMA3
    },
    Row { name: "glm4", ..GLM4 },
    Row {
        name: "glm4_5v",
        calls: ToolFormat::Glm4Moe,
        tools: ToolFormat::Glm4Moe,
        stop_words: &["<|user|>", "<|observation|>", "</answer>"],
        thinks: Thinks::OpenAndClose,
        ..GLM4
    },
    Row {
        name: "glm4_7",
        calls: ToolFormat::Glm4Moe,
        tools: ToolFormat::Glm4Moe,
        thought: Some(("<think>", "</think>")),
        thinks: Thinks::Close,
        ..GLM4
    },
    Row {
        name: "glm4_moe",
        calls: ToolFormat::Glm4Moe,
        tools: ToolFormat::Glm4Moe,
        thinks: Thinks::OpenAndClose,
        ..GLM4
    },
    Row {
        name: "glm4v",
        stop_words: &["<|user|>", "<|observation|>", "</answer>"],
        thinks: Thinks::OpenAndClose,
        ..GLM4
    },
    Row { name: "glmz1", thinks: Thinks::OpenAndClose, ..GLM4 },
    Row {
        name: "gpt_oss",
        system: "<|start|>system<|message|>{{content}}<|end|>",
        user: "<|start|>user<|message|>{{content}}<|end|><|start|>assistant",
        assistant: "{{content}}",
        default_system: "You are ChatGPT, a large language model trained by OpenAI.",
        thought: Some(("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>")),
        thinks: Thinks::OpenAndClose,
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "granite3",
        system: "<|start_of_role|>system<|end_of_role|>{{content}}<|end_of_text|>\n",
        user: "<|start_of_role|>user<|end_of_role|>{{content}}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        assistant: "{{content}}<|end_of_text|>\n",
        ..PLAIN
    },
    Row {
        name: "granite3_vision",
        system: "<|system|>\n{{content}}\n",
        user: "<|user|>\n{{content}}\n<|assistant|>\n",
        ..VICUNA
    },
    Row {
        name: "granite4",
        system: "<|start_of_role|>system<|end_of_role|>{{content}}<|end_of_text|>\n",
        user: "<|start_of_role|>user<|end_of_role|>{{content}}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        assistant: "{{content}}<|end_of_text|>\n",
        observation: "<|start_of_role|>tool<|end_of_role|>{{content}}<|end_of_text|>\n<|start_of_role|>assistant\n",
        default_system: "You are Granite, developed by IBM. You are a helpful AI assistant.",
        stop_words: &["<|end_of_text|>"],
        ..PLAIN
    },
    Row {
        name: "hunyuan",
        prefix: "<|startoftext|>",
        system: "{{content}}<|extra_4|>",
        user: "{{content}}<|extra_0|>",
        assistant: "{{content}}<|eos|>",
        stop_words: &["<|eos|>"],
        ..PLAIN
    },
    Row {
        name: "hunyuan_small",
        prefix: "<｜hy_begin▁of▁sentence｜>",
        system: "{{content}}<｜hy_place▁holder▁no▁3｜>",
        user: "<｜hy_User｜>{{content}}<｜hy_place▁holder▁no▁8｜>",
        assistant: "{{content}}<｜hy_place▁holder▁no▁2｜>",
        stop_words: &["<｜hy_place▁holder▁no▁2｜>"],
        ..PLAIN
    },
    Row {
        name: "hy3",
        prefix: "{{bos}}",
        user: "<｜hy_User｜>{{content}}<｜hy_Assistant｜>",
        assistant: "{{content}}<｜hy_eos｜>",
        stop_words: &["<｜hy_eos｜>"],
        thought: Some(("<think>", "</think>")),
        thinks: Thinks::OpenAndClose,
        replace_eos: true,
        ..PLAIN
    },
    Row {
        name: "index",
        system: "<unk>{{content}}",
        user: "reserved_0{{content}}reserved_1",
        assistant: "{{content}}",
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "intern",
        prefix: "{{bos}}",
        system: "<|System|>:{{content}}\n",
        user: "<|User|>:{{content}}\n<|Bot|>:",
        assistant: "{{content}}<eoa>\n",
        default_system: "You are an AI assistant whose name is InternLM (书生·浦语).\n- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the user such as English and 中文.",
        stop_words: &["<eoa>"],
        ..PLAIN
    },
    Row {
        name: "intern2",
        prefix: "{{bos}}",
        default_system: "You are an AI assistant whose name is InternLM (书生·浦语).\n- InternLM (书生·浦语) is a conversational language model that is developed by Shanghai AI Laboratory (上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n- InternLM (书生·浦语) can understand and communicate fluently in the language chosen by the user such as English and 中文.",
        ..CHATML
    },
    Row { name: "intern_s1", prefix: "{{bos}}", ..CHATML },
    Row {
        name: "intern_vl",
        prefix: "{{bos}}",
        default_system: "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。",
        ..CHATML
    },
    Row {
        name: "kimi_vl",
        system: "<|im_system|>system<|im_middle|>{{content}}<|im_end|>",
        user: "<|im_user|>user<|im_middle|>{{content}}<|im_end|><|im_assistant|>assistant<|im_middle|>",
        assistant: "{{content}}<|im_end|>",
        default_system: "You are a helpful assistant",
        thought: Some(("◁think▷", "◁/think▷")),
        thinks: Thinks::OpenAndClose,
        ..CHATML
    },
    Row {
        name: "lfm2",
        observation: "<|im_start|>tool\n<|tool_response_start|>{{content}}<|tool_response_end|><|im_end|>\n<|im_start|>assistant\n",
        calls: ToolFormat::Lfm2,
        tools: ToolFormat::Lfm2,
        default_system: "You are a helpful AI assistant.",
        ..QWEN
    },
    Row {
        name: "lfm2_vl",
        observation: "<|im_start|>tool\n<|tool_response_start|>{{content}}<|tool_response_end|><|im_end|>\n<|im_start|>assistant\n",
        calls: ToolFormat::Lfm2,
        tools: ToolFormat::Lfm2,
        default_system: "You are a helpful multimodal assistant by Liquid AI.",
        ..QWEN
    },
    Row { name: "llama2", ..LLAMA2 },
    Row {
        name: "llama2_zh", default_system: "You are a helpful assistant. 你是一个乐于助人的助手。", ..LLAMA2
    },
    Row { name: "llama3", ..LLAMA3 },
    Row {
        name: "llama4",
        system: "<|header_start|>system<|header_end|>\n\n{{content}}<|eot|>",
        user: "<|header_start|>user<|header_end|>\n\n{{content}}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        assistant: "{{content}}<|eot|>",
        observation: "<|header_start|>ipython<|header_end|>\n\n{{content}}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        stop_words: &["<|eot|>", "<|eom|>"],
        ..LLAMA3
    },
    Row {
        name: "marco",
        default_system: "你是一个经过良好训练的AI助手，你的名字是Marco-o1.由阿里国际数字商业集团的AI Business创造.\n## 重要！！！！！\n当你回答问题时，你的思考应该在<Thought>内完成，<Output>内输出你的结果。\n<Thought>应该尽可能是英文，但是有2个特例，一个是对原文中的引用，另一个是是数学应该使用markdown格式，<Output>内的输出需要遵循用户输入的语言。\n",
        ..CHATML_TOOL
    },
    Row { name: "mimo", default_system: "You are a helpful assistant.", thinks: Thinks::OpenAndClose, ..QWEN },
    Row {
        name: "mimo_v2",
        default_system: "You are MiMo, a helpful AI assistant engineered by Xiaomi.",
        thought: Some(("<think>", "</think>")),
        thinks: Thinks::OpenAndClose,
        ..QWEN
    },
    Row {
        name: "mimo_vl",
        default_system: "You are MiMo, an AI assistant developed by Xiaomi.",
        thinks: Thinks::OpenAndClose,
        ..QWEN
    },
    Row {
        name: "minicpm_o",
        default_system: "You are a helpful assistant. You can accept audio and text input and output voice and text.",
        ..CHATML
    },
    Row { name: "minicpm_v", default_system: "You are a helpful assistant.", ..CHATML },
    Row {
        name: "minimax1",
        system: "<beginning_of_sentence>system ai_setting=assistant\n{{content}}<end_of_sentence>\n",
        user: "<beginning_of_sentence>user name=user\n{{content}}<end_of_sentence>\n<beginning_of_sentence>ai name=assistant\n",
        assistant: "{{content}}<end_of_sentence>\n",
        observation: "<beginning_of_sentence>tool name=tools\n{{content}}<end_of_sentence>\n<beginning_of_sentence>ai name=assistant\n",
        calls: ToolFormat::Minimax1,
        tools: ToolFormat::Minimax1,
        default_system: "You are a helpful assistant.",
        stop_words: &["<end_of_sentence>"],
        ..PLAIN
    },
    Row {
        name: "minimax2",
        system: "]~!b[]~b]system\n{{content}}[e~[\n",
        user: "]~b]user\n{{content}}[e~[\n]~b]ai\n",
        assistant: "{{content}}[e~[\n",
        observation: "]~b]tool\n<response>{{content}}</response>[e~[\n]~b]ai\n",
        calls: ToolFormat::Minimax2,
        tools: ToolFormat::Minimax2,
        default_system: "You are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax.",
        stop_words: &["[e~["],
        thinks: Thinks::OpenAndClose,
        ..PLAIN
    },
    Row { name: "ministral", ..MISTRAL },
    Row {
        name: "mistral",
        user: "[INST] {{content}}[/INST]",
        assistant: " {{content}}{{eos}}",
        function: "[TOOL_CALLS] {{content}}{{eos}}",
        observation: "[TOOL_RESULTS] {\"content\": {{content}}}[/TOOL_RESULTS]",
        ..MISTRAL
    },
    Row {
        name: "mistral_small",
        system: "[SYSTEM_PROMPT]{{content}}[/SYSTEM_PROMPT]",
        system_in_user: false,
        ..MISTRAL
    },
    Row {
        name: "moonlight",
        system: "<|im_system|>system<|im_middle|>{{content}}<|im_end|>",
        user: "<|im_user|>user<|im_middle|>{{content}}<|im_end|><|im_assistant|>assistant<|im_middle|>",
        assistant: "{{content}}<|im_end|>",
        default_system: "You are a helpful assistant provided by Moonshot-AI.",
        replace_eos: true,
        ..CHATML
    },
    Row { name: "olmo", prefix: "{{eos}}", user: "<|user|>\n{{content}}<|assistant|>\n", ..PLAIN },
    Row {
        name: "openchat",
        prefix: "{{bos}}",
        user: "GPT4 Correct User: {{content}}{{eos}}GPT4 Correct Assistant:",
        ..PLAIN
    },
    Row {
        name: "openchat-3.6",
        prefix: "{{bos}}",
        user: "<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\n{{content}}<|eot_id|><|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n",
        stop_words: &["<|eot_id|>"],
        ..PLAIN
    },
    Row { name: "opencoder", default_system: "You are OpenCoder, created by OpenCoder Team.", ..CHATML_TOOL },
    Row {
        name: "orca",
        default_system: "You are Orca, an AI language model created by Microsoft. You are a cautious assistant. You carefully follow instructions. You are helpful and harmless and you follow ethical guidelines and promote positive behavior.",
        replace_eos: true,
        ..CHATML
    },
    Row { name: "orion", prefix: "{{bos}}", user: "Human: {{content}}\n\nAssistant: {{eos}}", ..PLAIN },
    Row { name: "paligemma", prefix: "{{bos}}", user: "{{content}}\n", system_in_user: true, ..PLAIN },
    Row { name: "paligemma_chat", system: "{{content}}", ..GEMMA },
    Row {
        name: "phi",
        system: "<|system|>\n{{content}}<|end|>\n",
        user: "<|user|>\n{{content}}<|end|>\n<|assistant|>\n",
        assistant: "{{content}}<|end|>\n",
        stop_words: &["<|end|>"],
        replace_eos: true,
        ..PLAIN
    },
    Row {
        name: "phi4",
        system: "<|im_start|>system<|im_sep|>{{content}}<|im_end|>",
        user: "<|im_start|>user<|im_sep|>{{content}}<|im_end|><|im_start|>assistant<|im_sep|>",
        assistant: "{{content}}<|im_end|>",
        replace_eos: true,
        ..CHATML
    },
    Row {
        name: "phi4_mini",
        system: "<|system|>{{content}}<|end|>",
        user: "<|user|>{{content}}<|end|><|assistant|>",
        assistant: "{{content}}<|end|>",
        tools: ToolFormat::Phi4Mini,
        stop_words: &["<|end|>"],
        replace_eos: true,
        ..PLAIN
    },
    Row {
        name: "qwen",
        default_system: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        ..QWEN
    },
    Row { name: "qwen1", default_system: "You are a helpful assistant.", replace_eos: true, ..CHATML_TOOL },
    Row { name: "qwen2_audio", default_system: "You are a helpful assistant.", replace_eos: true, ..CHATML },
    Row { name: "qwen2_vl", default_system: "You are a helpful assistant.", ..QWEN },
    Row { name: "qwen3", thinks: Thinks::OpenAndClose, ..QWEN },
    Row { name: "qwen3_5", calls: ToolFormat::Qwen35, tools: ToolFormat::Qwen35, thinks: Thinks::OpenAndClose, ..QWEN },
    Row { name: "qwen3_5_nothink", calls: ToolFormat::Qwen35, tools: ToolFormat::Qwen35, ..QWEN },
    Row { name: "qwen3_nothink", ..QWEN },
    Row {
        name: "sailor",
        user: "<|im_start|>question\n{{content}}<|im_end|>\n<|im_start|>answer\n",
        default_system: "You are an AI assistant named Sailor created by Sea AI Lab. Your answer should be friendly, unbiased, faithful, informative and detailed.",
        ..CHATML
    },
    Row {
        name: "seed_coder",
        system: "{{bos}}system\n{{content}}{{eos}}",
        user: "{{bos}}user\n{{content}}{{eos}}{{bos}}assistant\n",
        default_system: "You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance Seed, and you only answer questions related to computer science. For politically sensitive questions, security and privacy issues, and other non-computer science questions, you will refuse to answer.\n\n",
        ..PLAIN
    },
    Row {
        name: "seed_oss",
        system: "{{bos}}system\n{{content}}{{eos}}",
        user: "{{bos}}user\n{{content}}{{eos}}{{bos}}assistant\n",
        function: "{{bos}}\n{{content}}{{eos}}",
        calls: ToolFormat::SeedOss,
        tools: ToolFormat::SeedOss,
        thought: Some(("<seed:think>", "</seed:think>")),
        thinks: Thinks::OpenAndClose,
        ..PLAIN
    },
    Row {
        name: "skywork_o1",
        default_system: "You are Skywork-o1, a thinking model developed by Skywork AI, specializing in solving complex problems involving mathematics, coding, and logical reasoning through deep thought. When faced with a user's request, you first engage in a lengthy and in-depth thinking process to explore possible solutions to the problem. After completing your thoughts, you then provide a detailed explanation of the solution process in your response.",
        replace_eos: false,
        ..LLAMA3
    },
    Row {
        name: "smollm2",
        default_system: "You are a helpful AI assistant named SmolLM, trained by Hugging Face.",
        ..CHATML
    },
    Row {
        name: "solar",
        system: "### System:\n{{content}}\n\n",
        user: "### User:\n{{content}}\n\n### Assistant:\n",
        assistant: "{{content}}",
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "stablelm",
        system: "<|SYSTEM|>{{content}}",
        user: "<|USER|>{{content}}<|ASSISTANT|>",
        default_system: "# StableLM Tuned (Alpha version)\n- StableLM is a helpful and harmless open-source AI language model developed by StabilityAI.\n- StableLM is excited to be able to help the user, but will refuse to do anything that could be considered harmful to the user.\n- StableLM is more than just an information source, StableLM is also able to write poetry, short stories, and make jokes.\n- StableLM will refuse to participate in anything that could harm a human.\n",
        stop_words: &["<|USER|>", "<|ASSISTANT|>"],
        ..PLAIN
    },
    Row {
        name: "starchat",
        system: "<|system|>\n{{content}}<|end|>\n",
        user: "<|user|>\n{{content}}<|end|>\n<|assistant|>",
        assistant: "{{content}}<|end|>\n",
        stop_words: &["<|end|>"],
        ..PLAIN
    },
    Row { name: "telechat", system: "<_system>{{content}}<_end>", user: "<_user>{{content}}<_bot>", ..PLAIN },
    Row {
        name: "telechat2",
        system: "<_system>{{content}}",
        user: "<_user>{{content}}<_bot>",
        default_system: "你是中国电信星辰语义大模型，英文名是TeleChat，你是由中电信人工智能科技有限公司和中国电信人工智能研究院（TeleAI）研发的人工智能助手。",
        ..PLAIN
    },
    Row { name: "vicuna", ..VICUNA },
    Row {
        name: "xuanyuan",
        user: "Human: {{content}} Assistant:",
        default_system: "以下是用户和人工智能助手之间的对话。用户以Human开头，人工智能助手以Assistant开头，会对人类提出的问题给出有帮助、高质量、详细和礼貌的回答，并且总是拒绝参与与不道德、不安全、有争议、政治敏感等相关的话题、问题和指示。\n",
        ..PLAIN
    },
    Row { name: "xverse", user: "Human: {{content}}\n\nAssistant: ", ..PLAIN },
    Row {
        name: "yayi",
        system: "{{token:<|System|>}}:\n{{content}}\n\n",
        user: "{{token:<|Human|>}}:\n{{content}}\n\n{{token:<|YaYi|>}}:",
        assistant: "{{content}}\n\n",
        default_system: "You are a helpful, respectful and honest assistant named YaYi developed by Beijing Wenge Technology Co.,Ltd. Always answer as helpfully as possible, while being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\nIf a question does not make any sense, or is not factually coherent, explain why instead of answering something not correct. If you don't know the answer to a question, please don't share false information.",
        stop_words: &["<|End|>"],
        ..PLAIN
    },
    Row { name: "yi", ..CHATML },
    Row {
        name: "yi_vl",
        user: "### Human: {{content}}\n### Assistant:",
        assistant: "{{content}}\n",
        default_system: "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. Read all the images carefully, and respond to the human's questions with informative, helpful, detailed and polite answers. 这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。\n\n",
        stop_words: &["###"],
        efficient_eos: true,
        ..PLAIN
    },
    Row {
        name: "youtu",
        prefix: "{{bos}}",
        user: "<|User|>{{content}}<|Assistant|>",
        assistant: "{{content}}<|end_of_text|>",
        function: "{{content}}",
        observation: "<tool_response>\n{{content}}\n</tool_response><|Assistant|>",
        stop_words: &["<|end_of_text|>"],
        thinks: Thinks::OpenAndClose,
        replace_eos: true,
        ..PLAIN
    },
    Row {
        name: "youtu_vl",
        system: "<|begin_of_text|>system\n{{content}}<|end_of_text|>\n",
        user: "<|begin_of_text|>user\n{{content}}<|end_of_text|>\n<|begin_of_text|>assistant\n",
        assistant: "{{content}}<|end_of_text|>\n",
        default_system: "You are a helpful assistant.",
        stop_words: &["<|end_of_text|>"],
        ..PLAIN
    },
    Row {
        name: "yuan",
        user: "{{content}}{{token:<sep>}}",
        assistant: "{{content}}<eod>\n",
        stop_words: &["<eod>"],
        ..PLAIN
    },
    Row {
        name: "zephyr",
        system: "<|system|>\n{{content}}{{eos}}",
        user: "<|user|>\n{{content}}{{eos}}<|assistant|>\n",
        default_system: "You are Zephyr, a helpful assistant.",
        ..PLAIN
    },
    Row { name: "ziya", user: "<human>:{{content}}\n<bot>:", assistant: "{{content}}\n", ..PLAIN },
];

/// Names that mean another template: those of models that see or hear have the text of one that does not.
pub(super) static ALIASES: [(&str, &str); 29] = [
    ("gemma3", "gemma"),
    ("gemma3n", "gemma"),
    ("gemma4n", "gemma4"),
    ("glm_ocr", "glm4"),
    ("internlm", "intern"),
    ("internlm2", "intern2"),
    ("keye_vl", "qwen3"),
    ("llava", "vicuna"),
    ("llava_next", "vicuna"),
    ("llava_next_llama3", "llama3"),
    ("llava_next_mistral", "mistral"),
    ("llava_next_qwen", "qwen2_vl"),
    ("llava_next_video", "vicuna"),
    ("llava_next_video_mistral", "mistral"),
    ("llava_next_video_yi", "yi"),
    ("llava_next_yi", "yi"),
    ("minicpm_v_4_6", "minicpm_v"),
    ("ministral3", "ministral"),
    ("mllama", "llama3"),
    ("phi_small", "phi"),
    ("pixtral", "ministral"),
    ("qwen2_omni", "qwen2_vl"),
    ("qwen3_6", "qwen3_5"),
    ("qwen3_omni", "qwen3"),
    ("qwen3_omni_nothink", "qwen3_nothink"),
    ("qwen3_vl", "qwen3"),
    ("qwen3_vl_nothink", "qwen3_nothink"),
    ("smollm", "yi"),
    ("video_llava", "vicuna"),
];
