//! A model as every command opens it: its files, its tokenizer, its chat template.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use luthier_data::{ChatTemplate, TemplateOptions, Tokenizer};
use luthier_model::Checkpoint;
use luthier_model::checkpoint::{GgufTokenizer, ModelFiles, Quantisation, Quantiser};

use crate::builtin;
use crate::config::{TemplateSettings, TrainConfig};
use crate::eprint_line;

/// A model's files, read.
pub(crate) struct Model {
    pub(crate) files: ModelFiles,
    pub(crate) checkpoint: Checkpoint,
}

impl Model {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let files = if builtin::is_named(path) { builtin::files() } else { luthier_files::read_model(path)? };
        let checkpoint = Checkpoint::from_files(&files)?;
        Ok(Self { files, checkpoint })
    }

    /// The model that a configuration names; with `train_from_scratch` only its configuration and tokenizer are read.
    pub(crate) fn of(config: &TrainConfig) -> anyhow::Result<Self> {
        Self::made(config, None)
    }

    /// As [`of`](Self::of), stored as the configuration says.
    pub(crate) fn stored(config: &TrainConfig, threads: usize) -> anyhow::Result<Self> {
        Self::made(config, config.model.quantisation.map(|quantisation| quantiser(quantisation, threads)).as_ref())
    }

    /// Its linear layers stored as `quantisation` says, where it says something.
    pub(crate) fn with(mut self, quantisation: Option<Quantisation>, threads: usize) -> anyhow::Result<Self> {
        if let Some(quantisation) = quantisation {
            self.checkpoint.quantise(&quantiser(quantisation, threads))?;
        }
        Ok(self)
    }

    fn made(config: &TrainConfig, quantiser: Option<&Quantiser>) -> anyhow::Result<Self> {
        let path = &config.model.model;
        if !config.model.from_scratch {
            let mut model = Self::open(path)?;
            if let Some(quantiser) = quantiser {
                model.checkpoint.quantise(quantiser)?;
            }
            return Ok(model);
        }
        let files = match builtin::is_named(path) {
            true => builtin::files(),
            false => luthier_files::read_model_without_weights(path)?,
        };
        let checkpoint = Checkpoint::from_scratch(&files, config.machine.seed, quantiser)?;
        Ok(Self { files, checkpoint })
    }

    /// Its tokenizer.
    pub(crate) fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        tokenizer_of(&self.files, self.checkpoint.gguf_tokenizer.as_ref())
    }

    /// Its tokenizer, with the chat template that lies beside an adapter: the one that the adapter was trained with.
    pub(crate) fn tokenizer_with(&self, adapter: Option<&Path>) -> anyhow::Result<Tokenizer> {
        let tokenizer = self.tokenizer()?;
        let Some(path) = adapter.map(|adapter| adapter.join("chat_template.jinja")).filter(|path| path.is_file())
        else {
            return Ok(tokenizer);
        };
        let source = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        if tokenizer.chat_template() == Some(source.as_str()) {
            return Ok(tokenizer);
        }
        eprint_line(&format!("note: the chat template is that of the adapter, {}", path.display()));
        Ok(tokenizer.with_chat_template(source))
    }

    /// The template named, else the model's own.
    pub(crate) fn template(&self, settings: &TemplateSettings, tokenizer: &Tokenizer) -> anyhow::Result<ChatTemplate> {
        crate::watch::start();
        let options = template_options(settings);
        Ok(ChatTemplate::choose(settings.name.as_deref(), &self.files.label, tokenizer, &options)?)
    }
}

impl Model {
    /// The heads of its layers.
    pub(crate) fn layout(&self) -> luthier_tensor::HeadLayout {
        let (decoder, names) = (&self.checkpoint.model.decoder, &self.checkpoint.model.names);
        luthier_tensor::HeadLayout {
            heads: decoder.heads,
            key_value_heads: decoder.key_value_heads,
            head_dim: decoder.head_dim,
            order: names.head_order,
        }
    }
}

/// Lets go of the pages of files that are done.
pub(crate) fn quantiser(quantisation: Quantisation, threads: usize) -> Quantiser<'static> {
    Quantiser { quantisation, threads, release: &luthier_files::release }
}

/// The settings as the crate that writes conversations takes them, with the time.
pub(crate) fn template_options(settings: &TemplateSettings) -> TemplateOptions {
    TemplateOptions {
        default_system: settings.default_system.clone(),
        tool_format: settings.tool_format.clone(),
        enable_thinking: settings.enable_thinking,
        preserve_thinking: settings.preserve_thinking,
        now_unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs() as i64),
    }
}

/// The tokenizer of a model's files: the one that a GGUF file carries, `tokenizer.json`, or
/// what older models have in its place.
fn tokenizer_of(files: &ModelFiles, gguf: Option<&GgufTokenizer>) -> anyhow::Result<Tokenizer> {
    if let Some(found) = gguf {
        return Ok(Tokenizer::from_gguf(&data_tokenizer(found))?);
    }
    let template = files.get("chat_template.jinja").map(std::str::from_utf8).transpose()?;
    let config = files.get("tokenizer_config.json");
    if let Some(tokenizer) = files.get("tokenizer.json") {
        return Ok(Tokenizer::from_json(tokenizer, config, template)?);
    }
    // Some models call a tiktoken file `tokenizer.model`.
    let found = ["tokenizer.model", "qwen.tiktoken", "tiktoken.model"].into_iter();
    match found.filter_map(|name| Some((name, files.get(name)?))).next() {
        Some((name, bytes)) if luthier_data::is_tiktoken(bytes) => {
            let family = files.json("config.json")?;
            let family = family.as_ref().and_then(|config| config["model_type"].as_str());
            Ok(Tokenizer::from_tiktoken(name, bytes, family, config, template)?)
        }
        Some(("tokenizer.model", bytes)) => {
            Ok(Tokenizer::from_sentence_piece(bytes, config, files.get("added_tokens.json"), template)?)
        }
        Some((name, _)) => anyhow::bail!(
            "{}: it is no tiktoken file; expected a token in base64 and its rank on each line",
            files.path(name)
        ),
        None => anyhow::bail!(
            "{}: tokenizer.json is missing; expected it in the same folder, or a tokenizer.model or tiktoken file in its place",
            files.label
        ),
    }
}

/// The tokenizer at a path, where weights are not needed: of a vocabulary alone too.
pub(crate) fn open_tokenizer(path: &Path) -> anyhow::Result<Tokenizer> {
    let files = if builtin::is_named(path) { builtin::files() } else { luthier_files::read_tokenizer(path)? };
    let gguf = match files.gguf_name() {
        Some(name) => Some(GgufTokenizer::parse(&files.path(name), (*files.files[name]).as_ref())?),
        None => None,
    };
    tokenizer_of(&files, gguf.as_ref())
}

/// The tokenizer of a GGUF file, as the crate that encodes with it takes it.
pub(crate) fn data_tokenizer(found: &GgufTokenizer) -> luthier_data::GgufTokenizer {
    luthier_data::GgufTokenizer {
        model: found.model.clone(),
        pre: found.pre.clone(),
        tokens: found.tokens.clone(),
        token_types: found.token_types.clone(),
        merges: found.merges.clone(),
        scores: found.scores.clone(),
        begin_id: found.bos,
        end_id: found.eos,
        unknown_id: found.unknown,
        padding_id: found.padding,
        add_begin: found.add_bos,
        add_end: found.add_eos,
        add_space_prefix: found.add_space_prefix,
        remove_extra_whitespaces: found.remove_extra_whitespaces,
        charsmap: found.charsmap.clone(),
        lowercase: found.lowercase,
        strip_accents: found.strip_accents,
        chat_template: found.chat_template.clone(),
    }
}
