//! `luthier generate`: continuation of a text or answer to a message, printed to standard output. The most likely token
//! is taken unless options say otherwise.

use luthier_data::{Message, Role, Specials};
use luthier_model::{Decoder, Generator, Tuning};

use crate::adapters::Adapters;
use crate::config::{Precision, TemplateSettings, check_model};
use crate::hub::{HubSettings, Wanted, locate};
use crate::machine::{Processor, available_bytes};
use crate::model::Model;
use crate::quantised::QuantisationArguments;
use crate::sampling::{Sampling, SamplingArguments};
use crate::stop::StopFilter;
use crate::{Environment, eprint_line, print_text};

/// The most tokens where nothing is said.
const MOST_TOKENS: usize = 128;

/// What follows `luthier generate`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct Arguments {
    /// A Hugging Face folder, a GGUF file, or org/name of the Hugging Face hub (org/name@revision, org/name:file.gguf)
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// A PEFT adapter: a folder, or org/name of the hub; several with commas between are added
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) adapter: Option<String>,
    /// How much each adapter counts, such as 0.7,0.3 [default: 1 each]
    #[arg(long, value_name = "WEIGHTS", requires = "adapter", allow_hyphen_values = true)]
    pub(crate) adapter_weights: Option<String>,
    /// A text to go on with, as it stands
    #[arg(long, value_name = "TEXT", group = "input")]
    pub(crate) prompt: Option<String>,
    /// A message to answer, put into the model's chat template
    #[arg(long, value_name = "TEXT", group = "input")]
    pub(crate) message: Option<String>,
    /// A named chat template for --message, of `luthier template list` [default: the model's own]
    #[arg(long, value_name = "NAME", requires = "message")]
    pub(crate) template: Option<String>,
    /// What is multiplied; auto: bf16 where the processor multiplies it
    #[arg(long, value_enum, default_value_t = PrecisionArgument::Auto)]
    pub(crate) precision: PrecisionArgument,
    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) threads: Option<u16>,
    #[command(flatten)]
    pub(crate) quantisation: QuantisationArguments,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
}

/// [`Precision`] as it is typed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum PrecisionArgument {
    Auto,
    Fp32,
    Bf16,
}

impl From<PrecisionArgument> for Precision {
    fn from(argument: PrecisionArgument) -> Self {
        match argument {
            PrecisionArgument::Auto => Self::Auto,
            PrecisionArgument::Fp32 => Self::F32,
            PrecisionArgument::Bf16 => Self::Bf16,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let find =
        |setting: &str, text: &str, wanted| locate(setting, text, wanted, &HubSettings::default(), &environment.hub);
    let model_path = find("--model", &arguments.model, Wanted::Model)?;
    let problems = check_model(&model_path, "--model").err().into_iter().collect();
    let adapters = Adapters::read(
        "--adapter",
        arguments.adapter.as_deref(),
        arguments.adapter_weights.as_deref(),
        &|text| find("--adapter", text, Wanted::Adapter),
        problems,
    )?;
    adapters.all()?;
    let mut sampling = Sampling::greedy(MOST_TOKENS);
    sampling.take_arguments(&arguments.sampling).map_err(anyhow::Error::msg)?;
    let processor = Processor::choose(arguments.threads.map(usize::from), environment)?;
    let (precision, _) = processor.precision(Precision::from(arguments.precision));
    let model = Model::open(&model_path)?.with(arguments.quantisation.quantisation(), processor.threads)?;
    if let Some(note) = QuantisationArguments::note(adapters.last_path(), arguments.quantisation.quantisation()) {
        eprint_line(&format!("note: {note}"));
    }
    let tokenizer = model.tokenizer_with(adapters.last_path())?;
    let mut stop_ids = tokenizer.end_ids().to_vec();
    let prompt = match (&arguments.prompt, &arguments.message) {
        (Some(text), _) => tokenizer.encode(text, Specials::Add)?,
        (None, message) => {
            let message = Message::new(Role::User, message.clone().unwrap_or_default());
            let settings = TemplateSettings::named(arguments.template.as_deref());
            let template = model.template(&settings, &tokenizer)?;
            for note in template.notes() {
                eprint_line(&format!("note: {note}"));
            }
            stop_ids = template.end_ids(&tokenizer);
            sampling.stops.extend(template.stop_texts(&tokenizer));
            template.prompt_ids(&[message], &[], &tokenizer)?
        }
    };
    if prompt.is_empty() {
        anyhow::bail!("--prompt: the text has no token; expected some text to go on with");
    }
    let vocabulary = model.checkpoint.model.decoder.vocabulary_size;
    if let Some(id) = prompt.iter().find(|id| **id as usize >= vocabulary) {
        anyhow::bail!("the tokenizer gives token {id}, but the model knows {vocabulary}; it belongs to another model");
    }
    let device = processor.device(None)?;
    let decoder = Decoder::with_adapters(&device, &model.checkpoint, &Tuning::Nothing, &adapters.loaded())?;
    let mut ends = model.checkpoint.model.decoder.end_token_ids.clone();
    ends.extend(stop_ids);
    let wanted = sampling.most_tokens;
    let capacity = prompt.len().saturating_add(wanted);
    let positions = capacity.saturating_add(decoder.prompt_rows());
    let longest = model.checkpoint.model.decoder.max_positions;
    if let Some(most) = longest.filter(|most| positions > *most) {
        eprint_line(&format!(
            "warning: the prompt has {} tokens and {wanted} more are asked for, but the model was made for {most}; lower \
             --max-new-tokens",
            prompt.len()
        ));
    }
    let layout = model.layout();
    let width = 2 * layout.key_value_heads * layout.head_dim * model.checkpoint.model.decoder.layers.len();
    let cache_bytes = (positions as u64).saturating_mul(precision.storage().bytes(width) as u64);
    if let Some(free) = available_bytes().filter(|free| cache_bytes > free / 2) {
        anyhow::bail!(
            "--max-new-tokens: {wanted} tokens need a cache of {:.1} GB, and {:.1} GB of memory are free; ask for fewer",
            cache_bytes as f64 / 1e9,
            free as f64 / 1e9
        );
    }
    let mut generator = Generator::new(&device, &decoder, precision, capacity);
    let mut stream = tokenizer.stream();
    let mut filter = StopFilter::new(&sampling.stops);
    let mut stopped = false;
    let mut failure = None;
    generator.generate(&prompt, wanted, &ends, &sampling.sampler(0), &mut |id| {
        if ends.contains(&id) {
            return false;
        }
        match stream.push(id) {
            Ok(text) => {
                let (shown, ended) = filter.push(&text);
                stopped = ended;
                print_text(&shown);
            }
            Err(error) => failure = Some(error),
        }
        failure.is_none() && !stopped
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    if !stopped {
        let (shown, ended) = filter.push(&stream.finish()?);
        print_text(&shown);
        print_text(&if ended { String::new() } else { filter.finish() });
    }
    print_text("\n");
    Ok(())
}
