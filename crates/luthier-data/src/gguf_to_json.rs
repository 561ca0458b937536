//! The tokenizer of a GGUF file as the two files that transformers reads.

use serde_json::{Value, json};

use crate::error::Error;
use crate::gguf_tokenizer::{Built, GgufTokenizer};
use crate::tokenizer::failed;

impl GgufTokenizer {
    /// `tokenizer.json` and `tokenizer_config.json`, which has the chat template too.
    ///
    /// Errors: those of building the tokenizer.
    pub fn to_json(&self, max_positions: Option<usize>) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let Built { start, add_begin, sentence, .. } = self.build()?;
        if sentence.is_some() {
            let problem = format!("a tokenizer of the kind {:?} cannot be written as tokenizer.json", self.model);
            return Err(Error::Tokenizer { problem });
        }
        let text = start.to_string(false).map_err(failed)?;
        let mut tokenizer: Value =
            serde_json::from_str(&text).map_err(|error| Error::Tokenizer { problem: error.to_string() })?;
        let token = |id: Option<u32>| id.and_then(|id| Some((id, self.tokens.get(id as usize)?)));
        let before = token(self.begin_id).filter(|_| add_begin);
        let after = token(self.end_id).filter(|_| self.add_end == Some(true));
        if before.is_some() || after.is_some() {
            tokenizer["post_processor"] = around(before, after);
        }
        let text = |id: Option<u32>| token(id).map(|(_, text)| text.clone());
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "bos_token": text(self.begin_id),
            "eos_token": text(self.end_id),
            "unk_token": text(self.unknown_id),
            "pad_token": text(self.padding_id),
        });
        if let Some(positions) = max_positions {
            config["model_max_length"] = positions.into();
        }
        if let Some(template) = &self.chat_template {
            config["chat_template"] = template.as_str().into();
        }
        // The alternate form of a `Value` is indented JSON and cannot fail.
        Ok((format!("{tokenizer:#}\n").into_bytes(), format!("{config:#}\n").into_bytes()))
    }
}

/// A post-processor that puts a token before and one after a text.
fn around(before: Option<(u32, &String)>, after: Option<(u32, &String)>) -> Value {
    let special =
        |token: Option<(u32, &String)>| token.map(|(_, text)| json!({"SpecialToken": {"id": text, "type_id": 0}}));
    let sequence = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
    let list = |middle: Vec<Value>| -> Vec<Value> {
        special(before).into_iter().chain(middle).chain(special(after)).collect()
    };
    let mut tokens = serde_json::Map::new();
    for (id, text) in before.into_iter().chain(after) {
        tokens.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
    }
    json!({
        "type": "TemplateProcessing",
        "single": list(vec![sequence("A", 0)]),
        "pair": list(vec![sequence("A", 0), sequence("B", 1)]),
        "special_tokens": tokens,
    })
}
