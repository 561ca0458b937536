//! Every method with every stage, precision and optimiser: each cell of the table is trained on a tiny model, taken up from
//! its checkpoint to the same bytes, and loaded again, or refused in one sentence. `docs/methods.md` says which. A line in
//! one of the four lists adds a row, a column or a page.
//!
//! The gate runs the cells that show each pair of a method and an optimiser, of a method and a precision, and of a method
//! and a stage. `LUTHIER_CELLS=all` runs all of them, `LUTHIER_CELLS=QLoRA` those with that in their name; with
//! `LUTHIER_UPDATE=1` what was run is written on the page, and what the page does not tell of yet is run besides.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use luthier_model::checkpoint::read_safetensors;
use luthier_tensor::SharedBytes;
use tempfile::TempDir;

/// A value of one of the four lists: what it is called on the page, and the settings that make it.
struct Choice {
    name: &'static str,
    settings: &'static [&'static str],
    /// The model of the fixtures that it is trained on.
    model: &'static str,
}

const fn of(name: &'static str, settings: &'static [&'static str]) -> Choice {
    Choice { name, settings, model: "llama" }
}

impl Choice {
    const fn on(mut self, model: &'static str) -> Self {
        self.model = model;
        self
    }
}

/// A model that `luthier expand` made of `llama`.
const EXPANDED: &str = "llama-expanded";
/// One with rows of 64 numbers, which is what four-bit blocks need.
const WIDE: &str = "llama-64";

const METHODS: &[Choice] = &[
    of("full", &["finetuning_type=full"]),
    of("freeze, last layers", &["finetuning_type=freeze", "freeze_trainable_layers=1"]),
    of(
        "freeze, first layers and norms",
        &[
            "finetuning_type=freeze",
            "freeze_trainable_layers=-1",
            "freeze_trainable_modules=mlp",
            "freeze_extra_modules=norm",
        ],
    ),
    of("freeze, every second layer", &["finetuning_type=freeze", "freeze_layer_interval=2"]).on("qwen3"),
    of(
        "freeze, embedding and head only",
        &["finetuning_type=freeze", "freeze_trainable_layers=0", "freeze_extra_modules=embed_tokens,lm_head"],
    ),
    of(
        "freeze, tied embedding and head only",
        &["finetuning_type=freeze", "freeze_trainable_layers=0", "freeze_extra_modules=embed_tokens"],
    )
    .on("llama-tied"),
    of("bitfit", &["finetuning_type=bitfit"]).on("qwen2"),
    of("bitfit, a model without biases", &["finetuning_type=bitfit"]),
    of("LLaMA-Pro, added blocks", &["finetuning_type=freeze", "freeze_trainable_layers=2", "use_llama_pro=true"])
        .on(EXPANDED),
    of("LLaMA-Pro, LoRA on added blocks", &["freeze_trainable_layers=2", "use_llama_pro=true"]).on(EXPANDED),
    of("LoRA", &["lora_rank=2", "lora_dropout=0.1"]),
    of("LoRA, rank-stabilised", &["lora_rank=2", "use_rslora=true"]).on("qwen2"),
    of("LoRA and whole modules", &["lora_rank=2", "lora_target=q_proj", "additional_target=embed_tokens,lm_head"]),
    of("QLoRA, nf4", &["lora_rank=2", "quantization_bit=4"]).on(WIDE),
    of("QLoRA, fp4", &["lora_rank=2", "quantization_bit=4", "quantization_type=fp4"]).on(WIDE),
    of("LoRA on 8 bits", &["lora_rank=2", "quantization_bit=8"]),
    of("DoRA", &["lora_rank=2", "use_dora=true"]),
    of("QDoRA, nf4", &["lora_rank=2", "use_dora=true", "quantization_bit=4"]).on(WIDE),
    of("PiSSA", &["lora_rank=2", "pissa_init=true"]),
    of("PiSSA on 4 bits", &["lora_rank=2", "pissa_init=true", "quantization_bit=4"]).on(WIDE),
    of("LoRA+", &["lora_rank=2", "loraplus_lr_ratio=16"]),
    of("IA3", &["finetuning_type=ia3"]),
    of("VeRA", &["finetuning_type=vera", "vera_rank=4"]),
    of("OFT", &["finetuning_type=oft", "oft_block_size=8"]),
    of("prefix", &["finetuning_type=prefix", "num_virtual_tokens=3"]),
    of("prefix with projection", &["finetuning_type=prefix", "num_virtual_tokens=3", "prefix_projection=true"]),
    of("prompt", &["finetuning_type=prompt", "num_virtual_tokens=3"]),
    of("P-tuning", &["finetuning_type=p_tuning", "num_virtual_tokens=3"]),
    of("bottleneck, Pfeiffer", &["finetuning_type=bottleneck", "bottleneck_size=4"]),
    of("bottleneck, Houlsby", &["finetuning_type=bottleneck", "bottleneck_size=4", "placement=houlsby"]),
    of("full on 4 bits", &["finetuning_type=full", "quantization_bit=4"]),
];

const STAGES: &[Choice] = &[of("sft", &["stage=sft"]), of("pt", &["stage=pt"])];

const PRECISIONS: &[Choice] = &[
    of("fp32", &["precision=fp32"]),
    of("bf16", &["precision=bf16"]),
    of("fp16", &["precision=fp16"]),
    of("pure bf16", &["pure_bf16=true"]),
];

const OPTIMISERS: &[Choice] = &[
    of("AdamW", &["optim=adamw_torch"]),
    of("AdamW 8 bit", &["optim=adamw_8bit"]),
    of("Adam-mini", &["use_adam_mini=true"]),
    of("Adafactor", &["optim=adafactor"]),
    of("Lion", &["optim=lion_32bit"]),
    of("SGD", &["optim=sgd", "optim_args=momentum=0.9"]),
    of("Muon", &["use_muon=true"]),
    of("GaLore", &["use_galore=true", "galore_rank=2"]),
    of("APOLLO", &["use_apollo=true", "apollo_rank=2"]),
    of("BAdam", &["use_badam=true", "badam_switch_interval=1"]),
    of("schedule-free", &["optim=schedule_free_adamw"]),
    of("AdamW on the way back", &["optim=adamw_torch", "optimizer_in_bwd=true", "max_grad_norm=0"]),
];

/// Which entry of each list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    method: usize,
    stage: usize,
    precision: usize,
    optimiser: usize,
}

impl Cell {
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for method in 0..METHODS.len() {
            for stage in 0..STAGES.len() {
                for precision in 0..PRECISIONS.len() {
                    cells.extend((0..OPTIMISERS.len()).map(|optimiser| Self { method, stage, precision, optimiser }));
                }
            }
        }
        cells
    }

    /// Whether the gate runs it: with the first optimiser all stages and precisions, with each other one of them by turns.
    fn is_in_the_gate(self) -> bool {
        let turn = (self.method + self.optimiser) % (STAGES.len() * PRECISIONS.len());
        self.optimiser == 0 || turn == self.stage * PRECISIONS.len() + self.precision
    }

    fn settings(self) -> impl Iterator<Item = &'static str> {
        let choices =
            [&METHODS[self.method], &STAGES[self.stage], &PRECISIONS[self.precision], &OPTIMISERS[self.optimiser]];
        choices.into_iter().flat_map(|choice| choice.settings.iter().copied())
    }

    fn name(self) -> String {
        let [method, stage] = [METHODS[self.method].name, STAGES[self.stage].name];
        format!("{method}, {stage}, {}, {}", PRECISIONS[self.precision].name, OPTIMISERS[self.optimiser].name)
    }
}

/// What a cell comes to: nothing where all is well, or the sentence that refuses it. A cell that fails otherwise is a panic.
fn run(cell: Cell, place: &Path, base: &BTreeMap<&str, Vec<f32>>, number: usize) -> Option<String> {
    let model = METHODS[cell.method].model;
    let out = format!("out-{number}");
    let train = |words: &[&str]| {
        let settings: Vec<&str> = cell.settings().collect();
        let common = [
            "dataset=rows.jsonl",
            "max_steps=4",
            "save_steps=2",
            "val_size=2",
            "eval_steps=2",
            "load_best_model_at_end=false",
            "per_device_train_batch_size=2",
            "cutoff_len=16",
            "learning_rate=1e-3",
            "lr_scheduler_type=constant",
            "threads=1",
            "overwrite_output_dir=true",
        ];
        let model = format!("model_name_or_path={model}");
        luthier(place, &[&["train", &model], &common[..], &settings, words].concat())
    };
    let whole = train(&[&format!("output_dir={out}")]);
    if let Err(said) = whole {
        let error = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let error = error.unwrap_or_else(|| panic!("{}: {said}", cell.name()));
        assert_eq!(said.matches("error: ").count(), 1, "{}: one sentence: {said}", cell.name());
        return Some(error.trim_start_matches("command line: ").to_owned());
    }
    let result = |folder: &str| {
        let names = ["adapter_model.safetensors", "model.safetensors"];
        let path = names.map(|name| place.join(folder).join(name)).into_iter().find(|path| path.exists());
        path.unwrap_or_else(|| panic!("{}: nothing was saved in {folder}", cell.name()))
    };
    let saved = result(&out);

    // The second half again, from the checkpoint.
    let again = format!("again-{number}");
    let from = format!("resume_from_checkpoint={out}/checkpoint-2");
    train(&[&format!("output_dir={again}"), &from]).unwrap_or_else(|said| panic!("{}: {said}", cell.name()));
    let same = fs::read(&saved).unwrap() == fs::read(result(&again)).unwrap();
    assert!(same, "{}: another result after going on from a checkpoint", cell.name());

    // As anyone would load it: what it computes is finite, and not what the base computes.
    let adapter = saved.ends_with("adapter_model.safetensors").then(|| out.clone());
    let loaded = adapter.as_ref().map_or(out.as_str(), |_| model);
    let file = format!("logits-{number}.safetensors");
    let found = logits(place, loaded, adapter.as_deref(), &file);
    let tuned = found.unwrap_or_else(|said| panic!("{}: {said}", cell.name()));
    assert!(tuned.iter().all(|number| number.is_finite()), "{}: {tuned:?}", cell.name());
    assert!(base[model] != tuned, "{}: what was saved computes what the base does", cell.name());
    for folder in [&out, &again] {
        fs::remove_dir_all(place.join(folder)).unwrap();
    }
    None
}

/// Runs the program; what it said is the error where it failed.
fn luthier(place: &Path, words: &[&str]) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_luthier")).args(words).current_dir(place).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// What a model computes after some tokens.
fn logits(place: &Path, model: &str, adapter: Option<&str>, file: &str) -> Result<Vec<f32>, String> {
    let mut words = vec!["logits", "--model", model, "--ids", "5,6,7,8", "--output", file, "--threads", "1"];
    words.extend(adapter.iter().flat_map(|adapter| ["--adapter", adapter]));
    luthier(place, &words)?;
    let bytes: SharedBytes = Arc::new(fs::read(place.join(file)).unwrap());
    let tensors = read_safetensors("logits", &bytes, |_| false).unwrap();
    Ok(tensors.iter().find(|(name, _)| *name == "logits").unwrap().1.to_f32().unwrap())
}

/// The models, and rows of tokens.
fn place() -> TempDir {
    // In memory where that can be had, since thousands of small files are written to the disk one after another.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    for model in METHODS.iter().map(|method| method.model).filter(|model| ![EXPANDED, WIDE].contains(model)) {
        let folder = place.path().join(model);
        fs::create_dir_all(&folder).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(fixtures.join(model).join(file), folder.join(file)).unwrap();
        }
    }
    luthier(place.path(), &["expand", "--model", "llama", "--num-expand", "2", "--output", EXPANDED]).unwrap();
    let row = |row: u32| {
        let ids: Vec<u32> = (0..6 + row % 5).map(|token| 3 + (row * 7 + token * 5) % 120).collect();
        format!("{{\"input_ids\": {ids:?}}}\n")
    };
    fs::write(place.path().join("rows.jsonl"), (0..9).map(row).collect::<String>()).unwrap();
    let config = fs::read_to_string(place.path().join("llama/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [("hidden_size", 64), ("intermediate_size", 128), ("head_dim", 16)] {
        config[key] = value.into();
    }
    fs::create_dir(place.path().join("drawn")).unwrap();
    fs::write(place.path().join("drawn/config.json"), config.to_string()).unwrap();
    let made = ["train", "model_name_or_path=drawn", "train_from_scratch=true", "finetuning_type=full", "max_steps=1"];
    let out = format!("output_dir={WIDE}");
    luthier(place.path(), &[&made[..], &["dataset=rows.jsonl", "save_strategy=no", &out]].concat()).unwrap();
    place
}

/// Runs cells on as many threads as the machine has.
fn run_all(cells: &[Cell]) -> BTreeMap<Cell, Option<String>> {
    let place = place();
    let models: BTreeSet<&str> = METHODS.iter().map(|method| method.model).collect();
    let base =
        models.into_iter().map(|model| (model, logits(place.path(), model, None, "logits.safetensors").unwrap()));
    let base: BTreeMap<&str, Vec<f32>> = base.collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&cell) = cells.get(number) else { return };
                    // The others go on, so that all that fail are seen at once.
                    let end = catch_unwind(|| run(cell, place.path(), &base, number));
                    if let Ok(end) = end {
                        found.lock().unwrap().insert(cell, end);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/methods.md")
}

/// The page: the settings of each method, a table for each stage, and the reasons by number.
fn page(ends: &BTreeMap<Cell, Option<String>>) -> String {
    let mut text = String::from(
        "# Methods, stages, precisions, optimisers\n\n\
         Written by `LUTHIER_CELLS=all LUTHIER_UPDATE=1 cargo test -p luthier --test methods_table`, which trains each cell for \
         four steps\non a tiny model. `yes`: it trains, is evaluated, goes on from its checkpoint to the same bytes, and what \
         it saved is loaded\nagain. A number: it is refused, for the reason of that number.\n\n\
         | method | settings |\n| --- | --- |\n",
    );
    for method in METHODS {
        let settings: Vec<String> = method.settings.iter().map(|setting| setting.replacen('=', ": ", 1)).collect();
        let _ = writeln!(text, "| {} | `{}` |", method.name, settings.join("`, `"));
    }
    let columns: String = OPTIMISERS.iter().map(|optimiser| format!(" {} |", optimiser.name)).collect();
    let mut reasons: Vec<&str> = Vec::new();
    for (stage, choice) in STAGES.iter().enumerate() {
        let _ = write!(text, "\n## stage: {}\n\n| method | precision |{columns}\n", choice.name);
        let _ = writeln!(text, "| --- | --- |{}", " --- |".repeat(OPTIMISERS.len()));
        for (method, precision) in (0..METHODS.len()).flat_map(|method| (0..PRECISIONS.len()).map(move |p| (method, p)))
        {
            let _ = write!(text, "{}", row_head(method, precision));
            for optimiser in 0..OPTIMISERS.len() {
                let Some(reason) = &ends[&Cell { method, stage, precision, optimiser }] else {
                    text += " yes |";
                    continue;
                };
                let known = reasons.iter().position(|known| known == reason);
                let number = known.unwrap_or(reasons.len());
                if known.is_none() {
                    reasons.push(reason);
                }
                let _ = write!(text, " {} |", number + 1);
            }
            text.push('\n');
        }
    }
    text += "\n## Reasons\n\n";
    for (number, reason) in reasons.iter().enumerate() {
        let _ = writeln!(text, "{}. {reason}", number + 1);
    }
    text
}

fn row_head(method: usize, precision: usize) -> String {
    format!("| {} | {} |", METHODS[method].name, PRECISIONS[precision].name)
}

/// What the page says of a cell: `yes`, or a reason.
fn on_the_page(page: &str, cell: Cell) -> Option<&str> {
    let stage = format!("stage: {}\n", STAGES[cell.stage].name);
    let section = page.split("\n## ").find(|section| section.starts_with(&stage))?;
    let head = row_head(cell.method, cell.precision);
    let row = section.lines().find_map(|line| line.strip_prefix(&head))?;
    let shown = row.split('|').nth(cell.optimiser)?.trim();
    if shown == "yes" {
        return Some(shown);
    }
    page.lines().find_map(|line| line.strip_prefix(shown)?.strip_prefix(". "))
}

#[test]
fn every_cell_trains_goes_on_and_loads_or_says_why_not() {
    let (written, updates) =
        (fs::read_to_string(page_path()).unwrap_or_default(), std::env::var_os("LUTHIER_UPDATE").is_some());
    let chosen = |cell: &Cell| match std::env::var("LUTHIER_CELLS").as_deref() {
        Ok("all") => true,
        Ok(part) => cell.name().contains(part),
        Err(_) => cell.is_in_the_gate(),
    };
    // What the page does not tell of yet is run whenever it is written.
    let wanted = |cell: &Cell| chosen(cell) || updates && on_the_page(&written, *cell).is_none();
    let cells: Vec<Cell> = Cell::all().into_iter().filter(wanted).collect();
    let ends = run_all(&cells);
    let failed: Vec<String> = cells.iter().filter(|cell| !ends.contains_key(cell)).map(|cell| cell.name()).collect();
    assert!(failed.is_empty(), "{} cells fail: {failed:#?}", failed.len());
    if updates {
        // What was not run stays as it is on the page.
        let known = |cell: Cell| {
            let kept = || on_the_page(&written, cell).map(|end| (end != "yes").then(|| end.to_owned()));
            (cell, ends.get(&cell).cloned().or_else(kept).flatten())
        };
        fs::write(page_path(), page(&Cell::all().into_iter().map(known).collect())).unwrap();
        return;
    }
    for (cell, end) in &ends {
        let end = end.as_deref().unwrap_or("yes");
        assert_eq!(
            on_the_page(&written, *cell),
            Some(end),
            "{}: docs/methods.md says something else (LUTHIER_UPDATE=1 writes it anew)",
            cell.name()
        );
    }
}
