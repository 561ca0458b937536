//! Tiny models, one for each family of chat templates: a Llama of a few thousand numbers, and a tokenizer of bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

/// A family: what LLaMA-Factory's names for it begin with, its special tokens, and its template.
struct Family {
    name: &'static str,
    prefixes: &'static [&'static str],
    specials: &'static [&'static str],
    /// Of them, the one that ends a reply.
    end: &'static str,
    template: &'static str,
}

/// The first one is for the names that are not found here.
const FAMILIES: [Family; 5] = [
    Family {
        name: "chatml",
        prefixes: &["qwen", "chatml", "smollm"],
        specials: &["<|im_start|>", "<|im_end|>"],
        end: "<|im_end|>",
        template: "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\
                   {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    },
    Family {
        name: "llama3",
        prefixes: &["llama3"],
        specials: &["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        end: "<|eot_id|>",
        template: "{{ '<|begin_of_text|>' }}{% for m in messages %}\
                   {{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content + '<|eot_id|>' }}{% endfor %}\
                   {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    },
    Family {
        name: "llama2",
        prefixes: &["llama2", "mistral"],
        specials: &["<s>", "</s>"],
        end: "</s>",
        template: "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content + ' [/INST]' }}\
                   {% elif m.role == 'assistant' %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}",
    },
    Family {
        name: "deepseek3",
        prefixes: &["deepseek3", "deepseekr1"],
        specials: &["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"],
        end: "<｜end▁of▁sentence｜>",
        template: "{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}\
                   {% elif m.role == 'assistant' %}{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}{% endif %}\
                   {% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
    },
    Family {
        name: "deepseek",
        prefixes: &["deepseek"],
        specials: &["<｜end▁of▁sentence｜>"],
        end: "<｜end▁of▁sentence｜>",
        template: "{% for m in messages %}{% if m.role == 'user' %}{{ 'User: ' + m.content + '\\n\\n' }}\
                   {% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + '<｜end▁of▁sentence｜>' }}{% endif %}\
                   {% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    },
];

const HIDDEN: usize = 16;
const INTERMEDIATE: usize = 32;
const LAYERS: usize = 8;

/// Writes the model of the family that a template's name belongs to; returns its folder.
pub(crate) fn write(folder: &Path, template: &str) -> Result<PathBuf> {
    let is_of = |family: &&Family| family.prefixes.iter().any(|prefix| template.starts_with(prefix));
    let family = FAMILIES.iter().find(is_of).unwrap_or(&FAMILIES[0]);
    let folder = folder.join(family.name);
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)?;
    let vocabulary = 256 + family.specials.len();
    let config = json!({
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    fs::write(folder.join("tokenizer.json"), tokenizer(family).to_string())?;
    let tokenizer_config = json!({ "eos_token": family.end, "chat_template": family.template });
    fs::write(folder.join("tokenizer_config.json"), tokenizer_config.to_string())?;
    fs::write(folder.join("model.safetensors"), weights(vocabulary)?)?;
    Ok(folder)
}

/// Every byte is a token, as GPT-2 writes bytes, and every special token is one.
fn tokenizer(family: &Family) -> Value {
    let shows = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut hidden = 256;
    let mut vocabulary = Map::new();
    for byte in 0..=255_u8 {
        let letter = if shows(byte) { Some(char::from(byte)) } else { char::from_u32(hidden) };
        hidden += u32::from(!shows(byte));
        vocabulary.insert(letter.unwrap_or_default().to_string(), json!(byte));
    }
    let added = family.specials.iter().enumerate().map(|(index, text)| {
        json!({
            "id": 256 + index, "content": text, "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false,
        })
    });
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": bytes.clone(),
        "post_processor": null,
        "decoder": bytes,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    })
}

/// Weights that are small and not all the same.
fn weights(vocabulary: usize) -> Result<Vec<u8>> {
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, HIDDEN])];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            tensors.push((name(&format!("self_attn.{part}")), vec![HIDDEN, HIDDEN]));
        }
        for part in ["gate_proj", "up_proj"] {
            tensors.push((name(&format!("mlp.{part}")), vec![INTERMEDIATE, HIDDEN]));
        }
        tensors.push((name("mlp.down_proj"), vec![HIDDEN, INTERMEDIATE]));
        tensors.push((name("input_layernorm"), vec![HIDDEN]));
        tensors.push((name("post_attention_layernorm"), vec![HIDDEN]));
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let number =
                |index: usize| if shape.len() == 1 { 1.0 } else { (index * 7919 % 101) as f32 / 1010.0 - 0.05 };
            let bytes = (0..count).flat_map(|index| number(index).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let mut views = Vec::with_capacity(data.len());
    for (name, shape, bytes) in &data {
        views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    Ok(safetensors::serialize(views, None)?)
}
