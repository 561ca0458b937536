//! The names that LLaMA-Factory (0.9.5) gives to chat templates, and how each begins a turn.
//!
//! Its templates are not written down here. Where the model's own template begins turns in the same way, a name means that
//! one, which is what transformers and servers will write in front of the tuned model; where it does not, name and model
//! do not belong together.

/// What a family writes where a turn begins, and the names of its templates.
const FAMILIES: [(&str, &[&str]); 27] = [
    (
        "<|im_start|>",
        &[
            "chatml",
            "chatml_de",
            "cpm4",
            "dbrx",
            "ernie",
            "falcon_h1",
            "intern2",
            "intern_s1",
            "intern_vl",
            "keye_vl",
            "lfm2",
            "lfm2_vl",
            "llava_next_qwen",
            "llava_next_video_yi",
            "llava_next_yi",
            "mimo",
            "mimo_v2",
            "mimo_vl",
            "minicpm_o",
            "minicpm_v",
            "minicpm_v_4_6",
            "opencoder",
            "qwen",
            "qwen2_audio",
            "qwen2_omni",
            "qwen2_vl",
            "qwen3",
            "qwen3_5",
            "qwen3_5_nothink",
            "qwen3_6",
            "qwen3_nothink",
            "qwen3_omni",
            "qwen3_omni_nothink",
            "qwen3_vl",
            "qwen3_vl_nothink",
            "sailor",
            "smollm",
            "smollm2",
            "yi",
        ],
    ),
    ("<|im_sep|>", &["phi4"]),
    (
        "[INST]",
        &[
            "breeze",
            "llama2",
            "llama2_zh",
            "llava_next_mistral",
            "llava_next_video_mistral",
            "ministral",
            "ministral3",
            "mistral",
            "mistral_small",
            "pixtral",
        ],
    ),
    ("<|start_header_id|>", &["llama3", "llava_next_llama3", "mllama", "openchat-3.6"]),
    ("<|header_start|>", &["llama4"]),
    ("<start_of_turn>", &["gemma", "gemma2", "gemma3", "gemma3n", "paligemma_chat"]),
    ("<|turn>", &["gemma4", "gemma4n"]),
    ("<｜Assistant｜>", &["deepseek3", "deepseekr1"]),
    ("<｜hy_User｜>", &["hunyuan_small", "hy3"]),
    ("<|start_of_role|>", &["granite3", "granite4"]),
    (
        "<|assistant|>",
        &[
            "aeva",
            "chatglm3",
            "dots_ocr",
            "glm4",
            "glm4_5v",
            "glm4_7",
            "glm4_moe",
            "glm4v",
            "glm_ocr",
            "glmz1",
            "granite3_vision",
            "olmo",
            "phi",
            "phi4_mini",
            "phi_small",
            "starchat",
            "zephyr",
        ],
    ),
    ("<|start|>", &["gpt_oss"]),
    ("<role>", &["bailing", "bailing_v2"]),
    ("<|START_OF_TURN_TOKEN|>", &["cohere"]),
    ("<|im_user|>", &["kimi_vl", "moonlight"]),
    ("[|user|]", &["exaone"]),
    ("<_user>", &["telechat2"]),
    ("<|User|>", &["youtu"]),
    ("<beginning_of_sentence>", &["minimax1"]),
    ("]~b]", &["minimax2"]),
    ("<|extra_0|>", &["hunyuan"]),
    ("reserved_0", &["index"]),
    ("### Instruction", &["alpaca", "deepseekcoder"]),
    ("ASSISTANT:", &["llava", "llava_next", "llava_next_video", "vicuna", "video_llava"]),
    ("GPT4 Correct", &["openchat"]),
    ("### User", &["solar"]),
    ("Assistant:", &["deepseek", "default", "ernie_nothink", "ernie_vl", "xuanyuan", "yi_vl"]),
];
/// Names of templates that write nothing, or nothing of their own, where a turn begins.
const BARE: [&str; 8] = ["empty", "falcon", "fewshot", "paligemma", "seed_coder", "seed_oss", "youtu_vl", "yuan"];

/// What the template of this name writes where a turn begins; `None` for a name that is not LLaMA-Factory's, or whose
/// template writes nothing there.
pub(crate) fn begins_turns_with(name: &str) -> Option<&'static str> {
    FAMILIES.iter().find(|(_, names)| names.contains(&name)).map(|(marker, _)| *marker)
}

/// Whether LLaMA-Factory has a template of this name.
pub(crate) fn is_known(name: &str) -> bool {
    BARE.contains(&name) || begins_turns_with(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_in_two_families() {
        let mut names: Vec<&str> = FAMILIES.iter().flat_map(|(_, names)| names.iter().copied()).chain(BARE).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(is_known("qwen3_nothink") && is_known("empty") && !is_known("qwenn"));
    }
}
