//! What an export writes: names, sizes and contents of the files, planned before the first byte goes to the disk.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use luthier_data::{ChatTemplate, Tokenizer};
use luthier_model::Merged;
use luthier_model::checkpoint::{
    Checkpoint, GgufCarried, GgufFileType, GgufPlan, GgufSource, GgufStorage, GgufTokenizer, Shard, TensorSpec, encode,
    gguf_bytes, plan_gguf, plan_shards, write_gguf,
};
use luthier_tensor::DType;

use super::config::{ExportConfig, Format, OutType, Target};
use super::{file_name, modelfile};
use crate::config::TemplateSettings;
use crate::model::{Model, data_tokenizer};
use crate::signals;

/// The files to be written.
pub(crate) struct Files {
    kind: Kind,
    /// What is opened to load the model again, relative to the folder.
    pub(crate) model: String,
    /// The name of the model card.
    pub(crate) card: String,
    /// Bytes of all files but the card.
    pub(crate) bytes: u64,
    /// What is different in the files, as sentences.
    pub(crate) notes: Vec<String>,
}

enum Kind {
    Folder { small: Vec<(String, Vec<u8>)>, shards: Vec<Shard> },
    Gguf(GgufPlan),
}

impl Files {
    pub(crate) fn tensor_count(&self) -> usize {
        match &self.kind {
            Kind::Folder { shards, .. } => shards.iter().map(|shard| shard.tensors.len()).sum(),
            Kind::Gguf(plan) => plan.tensors.len(),
        }
    }

    /// The tensors of a GGUF file that are made of the model's: its name, and the type that it is stored in.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (&str, DType)> {
        let tensors = match &self.kind {
            Kind::Folder { .. } => &[][..],
            Kind::Gguf(plan) => &plan.tensors,
        };
        tensors.iter().filter_map(|tensor| match &tensor.source {
            GgufSource::Model { name, .. } => Some((name.as_str(), tensor.spec.dtype)),
            GgufSource::Values(_) => None,
        })
    }
}

/// An export with everything that it is made from.
pub(crate) struct Job<'a> {
    config: &'a ExportConfig,
    model: &'a Model,
    pub(crate) merged: Merged<'a>,
    pub(crate) tokenizer: Option<Tokenizer>,
    /// The template that was named, where the model's own is missing or writes something else.
    named: Option<ChatTemplate>,
    pub(crate) storage: GgufStorage,
    /// What the storage is called, in lower case.
    pub(crate) stored_name: String,
}

/// How most of a model's numbers are stored.
pub(crate) fn stored_as(checkpoint: &Checkpoint) -> DType {
    let count = |dtype: &DType| -> usize {
        let stored = checkpoint.tensors.values().filter(|tensor| tensor.dtype() == *dtype);
        stored.map(|tensor| tensor.tensor().len()).sum()
    };
    let all = [DType::Bf16, DType::F32, DType::F16].into_iter().chain(DType::BLOCKS).chain(DType::BITSANDBYTES);
    // The first of equals.
    all.into_iter().rev().max_by_key(count).unwrap_or(DType::Bf16)
}

impl<'a> Job<'a> {
    pub(crate) fn new(config: &'a ExportConfig, model: &'a Model, merged: Merged<'a>) -> anyhow::Result<Self> {
        let has_tokenizer = model.checkpoint.gguf_tokenizer.is_some() || model.files.get("tokenizer.json").is_some();
        let tokenizer = has_tokenizer.then(|| model.tokenizer()).transpose()?;
        if tokenizer.is_none() {
            anyhow::ensure!(
                config.format == Format::Hf,
                "{}: tokenizer.json is missing, and a GGUF file contains the tokenizer; expected it in the same folder",
                model.files.label
            );
            super::note("the model has no tokenizer.json, so the export has none either");
        }
        let base = stored_as(&model.checkpoint);
        let is_gguf = model.checkpoint.gguf_tokenizer.is_some();
        let storage = match (config.outtype, GgufFileType::named(base.name())) {
            (Some(outtype), _) => GgufStorage::Named(outtype.file_type()),
            (None, _) if is_gguf && config.format == Format::Gguf => GgufStorage::AsBase,
            (None, Some(plain)) if !plain.is_quantised() => GgufStorage::Named(plain),
            _ => GgufStorage::Named(OutType::Bf16.file_type()),
        };
        let stored_name = match storage {
            GgufStorage::Named(named) => named.name.to_owned(),
            GgufStorage::AsBase => {
                let named = GgufCarried::read(&model.files)?.and_then(|carried| carried.file_type());
                named.map_or_else(|| base.name().to_owned(), |named| named.name.to_owned())
            }
        };
        let mut named = None;
        if let (Some(name), Some(tokenizer)) = (&config.template, &tokenizer) {
            let template = model.template(&TemplateSettings::named(Some(name)), tokenizer)?;
            if template.replaces_own() {
                template.notes().iter().for_each(|sentence| super::note(sentence));
                super::note(&format!(
                    "the export has the template {name}, written in Jinja; it has no place for tools"
                ));
                named = Some(template);
            } else {
                super::note(&format!(
                    "template {name}: the model's own chat template writes the same and is kept, since it writes tools too"
                ));
            }
        }
        Ok(Self { config, model, merged, tokenizer, named, storage, stored_name })
    }

    /// The name of the template that the export gets instead of the model's own.
    pub(crate) fn named_template(&self) -> Option<&str> {
        self.named.as_ref().map(ChatTemplate::name)
    }

    /// The source of the template that the exported model will have.
    pub(crate) fn template_source(&self) -> anyhow::Result<Option<String>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        let own = || tokenizer.chat_template().map(str::to_owned);
        Ok(self.named.as_ref().map(ChatTemplate::jinja_source).or_else(own))
    }

    pub(crate) fn plan(&self) -> anyhow::Result<Files> {
        match self.config.format {
            Format::Hf => self.plan_folder(),
            Format::Gguf => self.plan_gguf(),
        }
    }

    fn plan_folder(&self) -> anyhow::Result<Files> {
        let checkpoint = &self.model.checkpoint;
        let GgufStorage::Named(GgufFileType { dtype, .. }) = self.storage else {
            anyhow::bail!("a folder is stored in f32, f16 or bf16");
        };
        let companions = self.model.files.companions();
        let mut small: Vec<(String, Vec<u8>)> =
            companions.map(|(name, bytes)| (name.to_owned(), (**bytes).as_ref().to_vec())).collect();
        small.push(("config.json".into(), checkpoint.config_json(dtype)));
        if let Some(found) = &checkpoint.gguf_tokenizer {
            let (tokenizer, config) = data_tokenizer(found).to_json(checkpoint.model.decoder.max_positions)?;
            small.push(("tokenizer.json".into(), tokenizer));
            small.push(("tokenizer_config.json".into(), config));
        }
        if self.named_template().is_some()
            && let Some(source) = self.template_source()?
        {
            small.retain(|(name, _)| name != "chat_template.jinja");
            small.push(("chat_template.jinja".into(), source.into_bytes()));
        }
        let specs = checkpoint.tensors.iter().map(|(name, tensor)| TensorSpec {
            name: name.clone(),
            dtype,
            dims: tensor.dims().to_vec(),
        });
        let shards = plan_shards(specs.collect(), self.config.shard_bytes)?;
        let numbers: u64 = shards.iter().flat_map(|shard| &shard.tensors).map(TensorSpec::bytes).sum();
        let bytes = numbers + small.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let mut notes = Vec::new();
        if checkpoint.config.get("auto_map").is_some() {
            notes.push(
                "config.json names Python code of its own (auto_map); transformers needs those .py files of the base beside \
                 the export"
                    .to_owned(),
            );
        }
        Ok(Files { kind: Kind::Folder { small, shards }, model: String::new(), card: "README.md".into(), bytes, notes })
    }

    fn plan_gguf(&self) -> anyhow::Result<Files> {
        let checkpoint = &self.model.checkpoint;
        let carried = GgufCarried::read(&self.model.files)?;
        let tokenizer = match &checkpoint.gguf_tokenizer {
            Some(found) => GgufTokenizer { chat_template: self.template_source()?, ..found.clone() },
            None => self.gguf_tokenizer()?,
        };
        let name = self.config.target.name();
        let plan = plan_gguf(checkpoint, &name, self.storage, &tokenizer, carried.as_ref())?;
        let specs: Vec<TensorSpec> = plan.tensors.iter().map(|tensor| tensor.spec.clone()).collect();
        let bytes = gguf_bytes(&plan.metadata, &specs);
        let notes = plan.notes.clone();
        let (model, card) = match &self.config.target {
            Target::Folder(_) => (format!("{name}-{}.gguf", self.stored_name.to_uppercase()), "README.md".to_owned()),
            Target::File(path) => {
                let shown = |path: PathBuf| path.display().to_string();
                (shown(file_name(path)), shown(file_name(&path.with_extension("md"))))
            }
        };
        Ok(Files { kind: Kind::Gguf(plan), model, card, bytes, notes })
    }

    /// The tokenizer of a Hugging Face folder as a GGUF file has it.
    fn gguf_tokenizer(&self) -> anyhow::Result<GgufTokenizer> {
        let decoder = &self.model.checkpoint.model.decoder;
        let tokenizer = self.tokenizer.as_ref().context("a GGUF file contains the tokenizer")?;
        let json = self.model.files.get("tokenizer.json").unwrap_or_default();
        let config = self.model.files.get("tokenizer_config.json");
        let pre = self.config.pre.as_deref();
        let found = luthier_data::GgufTokenizer::from_json(json, config, tokenizer, decoder.vocabulary_size, pre)
            .with_context(|| self.model.files.label.clone())?;
        let eos = found.end_id.or(decoder.end_token_ids.first().copied());
        Ok(GgufTokenizer {
            bos: found.begin_id.or(decoder.begin_token_id),
            eos,
            eot: decoder.end_token_ids.iter().copied().find(|id| Some(*id) != eos),
            unknown: found.unknown_id,
            padding: found.padding_id,
            add_bos: found.add_begin,
            add_eos: found.add_end,
            model: found.model,
            pre: found.pre,
            tokens: found.tokens,
            token_types: found.token_types,
            merges: found.merges,
            scores: found.scores,
            add_space_prefix: found.add_space_prefix,
            remove_extra_whitespaces: found.remove_extra_whitespaces,
            charsmap: found.charsmap,
            lowercase: found.lowercase,
            strip_accents: found.strip_accents,
            chat_template: self.template_source()?,
        })
    }

    /// Writes all files but the card into an empty folder.
    pub(crate) fn write(&self, files: &Files, folder: &Path) -> anyhow::Result<()> {
        let mut progress = Progress::new(files.tensor_count());
        match &files.kind {
            Kind::Folder { small, shards } => {
                let small: Vec<(&str, &[u8])> =
                    small.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
                luthier_files::write_model(folder, &small, shards, &mut |spec, writer| {
                    progress.tensor(&spec.name)?;
                    self.merged.write(&spec.name, None, spec.dtype, writer)
                })?;
            }
            Kind::Gguf(plan) => {
                let specs: Vec<TensorSpec> = plan.tensors.iter().map(|tensor| tensor.spec.clone()).collect();
                let mut tensors = plan.tensors.iter();
                luthier_files::write_atomically(&folder.join(&files.model), |writer| {
                    write_gguf(&plan.metadata, &specs, writer, &mut |spec, writer| {
                        progress.tensor(&spec.name)?;
                        // They are asked for in the order of the list.
                        match tensors.next().map(|tensor| &tensor.source) {
                            Some(GgufSource::Model { name, rows }) => {
                                self.merged.write(name, rows.as_deref(), spec.dtype, writer)
                            }
                            Some(GgufSource::Values(values)) => {
                                let bytes = encode(values, spec.dtype).map_err(std::io::Error::other)?;
                                writer.write_all(&bytes)
                            }
                            None => Err(std::io::Error::other(format!("no numbers for `{}`", spec.name))),
                        }
                    })
                })?;
            }
        }
        Ok(())
    }

    /// The name and the text of the Modelfile.
    pub(crate) fn modelfile(&self, files: &Files) -> anyhow::Result<(String, String)> {
        let tokenizer = self.tokenizer.as_ref().context("a GGUF file contains the tokenizer")?;
        let has_template = self.template_source()?.is_some();
        let named = self.named_template();
        let template =
            match has_template.then(|| self.model.template(&TemplateSettings::named(named), tokenizer)).transpose() {
                Ok(template) => template,
                Err(error) if named.is_some() => return Err(error),
                // The replay has said why.
                Err(_) => None,
            };
        let (text, notes) = modelfile::text(&files.model, has_template, template.as_ref(), tokenizer);
        notes.iter().for_each(|sentence| super::note(sentence));
        let name = match &self.config.target {
            Target::Folder(_) => PathBuf::from("Modelfile"),
            Target::File(path) => file_name(&path.with_extension("Modelfile")),
        };
        Ok((name.display().to_string(), text))
    }
}

/// A line that follows the tensors, where standard error is a terminal.
struct Progress {
    all: usize,
    done: usize,
    live: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { all, done: 0, live: std::io::stderr().is_terminal() }
    }

    /// The next tensor begins. Errors: the export is to stop.
    fn tensor(&mut self, name: &str) -> std::io::Result<()> {
        signals::check()?;
        self.done += 1;
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[2K{} of {}  {name}", self.done, self.all);
        }
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.live && self.done > 0 {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}
