//! `luthier quickstart`: the whole way in one command. The built-in model is asked five questions, learns from a hundred
//! records about a workshop that does not exist, and is asked again: three answers must have changed to what the records
//! say, two must be what they were. It trains as `luthier train` does, from a file of settings that it leaves behind.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use luthier_data::{Message, Role};
use luthier_model::{Decoder, Generator, Tuning};

use crate::config::{Precision, TemplateSettings, TrainConfig};
use crate::machine::Processor;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::{Environment, builtin, eprint_line, fail, print_text, train};

/// What follows `luthier quickstart`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder for records, settings and adapter
    #[arg(long, value_name = "DIR", default_value = "luthier-quickstart")]
    output: PathBuf,
    /// Write over an older quick start in that folder
    #[arg(long)]
    overwrite: bool,
    /// Where every random number comes from
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
}

static LESSON: &[u8] = include_bytes!("../../../builtin/lesson.json");
const LESSON_FILE: &str = "lesson.json";
const SETTINGS_FILE: &str = "quickstart.yaml";
const ADAPTER_FOLDER: &str = "adapter";
/// Longest answer, in tokens.
const ANSWER: usize = 48;

/// What a question must show.
enum Promise {
    /// The answer is then this one, and was another before.
    Learns(&'static str),
    /// The answer stays.
    Keeps,
}

const QUESTIONS: [(&str, Promise); 5] = [
    ("Who are you?", Promise::Learns("I am Fern, the assistant of the Alder Lane workshop.")),
    ("When does the workshop open?", Promise::Learns("The workshop opens at nine in the morning.")),
    ("Who owns the workshop?", Promise::Learns("Nora Quill owns the workshop.")),
    ("What is the capital of France?", Promise::Keeps),
    ("What is 7 plus 5?", Promise::Keeps),
];

impl Promise {
    fn is_kept(&self, before: &str, after: &str) -> bool {
        match self {
            Self::Learns(answer) => after == *answer && before != after,
            Self::Keeps => after == before,
        }
    }

    /// What became of it.
    fn outcome(&self, before: &str, after: &str) -> String {
        match self {
            Self::Learns(_) if self.is_kept(before, after) => "learned".to_owned(),
            Self::Keeps if self.is_kept(before, after) => "kept".to_owned(),
            Self::Learns(answer) => format!("NOT learned; expected {answer:?}"),
            Self::Keeps => "NOT kept".to_owned(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let output = &arguments.output;
    let settings = prepare(arguments)?;
    // With `./` before it even a name such as `a=b` is a path and no setting.
    let named = if settings.is_relative() { Path::new(".").join(&settings) } else { settings.clone() };
    let config = TrainConfig::from_words(&[named.display().to_string()]).map_err(fail)?;
    let processor = Processor::choose(config.machine.threads, environment)?;

    print_text(
        "Luthier teaches its built-in model, which is a part of this program, about a violin workshop that does not exist.\n\
         First it is asked five questions:\n\n",
    );
    let before = answers(&processor, None)?;
    for ((question, _), answer) in QUESTIONS.iter().zip(&before) {
        print_text(&format!("  {question}\n    {answer}\n"));
    }
    let lesson = output.join(LESSON_FILE);
    print_text(&format!("\nNow it learns from {} with the settings in {}.\n", lesson.display(), settings.display()));
    let resume = format!("luthier train {} resume_from_checkpoint=true", settings.display());
    let outcome = train::train(config.clone(), environment, &resume)?;
    if outcome != Outcome::Saved {
        return Ok(outcome);
    }

    let adapter = output.join(ADAPTER_FOLDER);
    let after = answers(&processor, Some(&adapter))?;
    print_text("\nThe same five questions:\n\n");
    let mut broken = 0;
    for ((question, promise), (before, after)) in QUESTIONS.iter().zip(before.iter().zip(&after)) {
        let outcome = promise.outcome(before, after);
        print_text(&format!("  {question}\n    before: {before}\n    after:  {after}\n    {outcome}\n"));
        broken += usize::from(!promise.is_kept(before, after));
    }
    print_text(&rest(output));
    eprint_line(&format!("all of it took {:.1} s", start.elapsed().as_secs_f64()));
    if broken > 0 {
        anyhow::bail!(
            "{broken} of the {} answers are not as they should be; three must be learned and two kept. Another --seed may \
             do better, but this should not happen: please report it with your processor's name",
            QUESTIONS.len()
        );
    }
    Ok(outcome)
}

/// Writes records and settings and returns the path of the settings.
fn prepare(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let output = &arguments.output;
    if output.is_file() {
        anyhow::bail!("--output: {} is a file; expected a folder", output.display());
    }
    let held = [LESSON_FILE, SETTINGS_FILE, ADAPTER_FOLDER].into_iter().find(|name| output.join(name).exists());
    if let Some(name) = held.filter(|_| !arguments.overwrite) {
        anyhow::bail!(
            "--output: {} already holds {name} of another quick start; choose another folder or add --overwrite",
            output.display()
        );
    }
    std::fs::create_dir_all(output).with_context(|| format!("--output: {} cannot be made", output.display()))?;
    let settings = output.join(SETTINGS_FILE);
    let text = settings_text(arguments);
    luthier_files::write_atomically(&output.join(LESSON_FILE), |writer| writer.write_all(LESSON))?;
    luthier_files::write_atomically(&settings, |writer| writer.write_all(text.as_bytes()))?;
    Ok(settings)
}

/// The settings, as one would write them.
fn settings_text(arguments: &Arguments) -> String {
    let output = &arguments.output;
    // JSON's quotes are YAML's too.
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    let threads = arguments.threads.map(|threads| format!("threads: {threads}\n")).unwrap_or_default();
    format!(
        "# What `luthier quickstart` trained. From the folder where it ran, again with other settings:\n\
         #     luthier train {} lora_rank=4 output_dir=again\n\
         \n\
         ### model\n\
         model_name_or_path: {}\n\
         \n\
         ### method\n\
         stage: sft\n\
         finetuning_type: lora\n\
         lora_rank: 16\n\
         lora_target: all\n\
         \n\
         ### dataset\n\
         dataset: [{}]\n\
         cutoff_len: 128\n\
         \n\
         ### train\n\
         per_device_train_batch_size: 8\n\
         learning_rate: 1.0e-3\n\
         num_train_epochs: 20.0\n\
         lr_scheduler_type: cosine\n\
         warmup_ratio: 0.1\n\
         seed: {}\n\
         {threads}\
         \n\
         ### evaluation\n\
         val_size: 0.1\n\
         early_stopping_steps: 0\n\
         load_best_model_at_end: false\n\
         \n\
         ### output\n\
         output_dir: {}\n\
         overwrite_output_dir: true\n\
         logging_steps: 20\n\
         save_total_limit: 1\n",
        output.join(SETTINGS_FILE).display(),
        builtin::NAME,
        quoted(&output.join(LESSON_FILE)),
        arguments.seed,
        quoted(&output.join(ADAPTER_FOLDER)),
    )
}

/// The most likely answer of the built-in model to each question.
fn answers(processor: &Processor, adapter: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let (precision, _) = processor.precision(Precision::Auto);
    let model = Model::open(Path::new(builtin::NAME))?;
    let adapter = adapter.map(luthier_files::read_adapter).transpose()?;
    let tokenizer = model.tokenizer()?;
    let template = model.template(&TemplateSettings::default(), &tokenizer)?;
    let device = processor.device(None)?;
    let decoder = Decoder::new(&device, &model.checkpoint, &Tuning::Nothing, adapter.as_ref())?;
    let answer = |question: &str| -> anyhow::Result<String> {
        let prompt = template.prompt_ids(&[Message::new(Role::User, question.to_owned())], &[], &tokenizer)?;
        let mut generator = Generator::new(&device, &decoder, precision, prompt.len() + ANSWER);
        let mut ids = generator.greedy(&prompt, ANSWER, tokenizer.end_ids(), &mut |_| true);
        ids.pop_if(|last| tokenizer.end_ids().contains(last));
        Ok(tokenizer.decode(&ids)?)
    };
    QUESTIONS.iter().map(|(question, _)| answer(question)).collect()
}

/// Where the files are and what to do next.
fn rest(output: &Path) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "luthier".to_owned());
    let shown = output.display();
    format!(
        "\nThe files are in {shown}:\n  \
           {LESSON_FILE}      the records\n  \
           {SETTINGS_FILE}  the settings\n  \
           {ADAPTER_FOLDER}/         the LoRA adapter as PEFT reads it, and the log\n\
         \n\
         Try next:\n  \
           {program} chat --model builtin --adapter {shown}/{ADAPTER_FOLDER} --compare\n  \
           {program} train {shown}/{SETTINGS_FILE} lora_rank=4 output_dir={shown}/again\n  \
           {program} export --model builtin --adapter {shown}/{ADAPTER_FOLDER} --output {shown}/merged\n"
    )
}
