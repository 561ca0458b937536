//! `luthier chat`: a conversation with a model, with an adapter, or with both side by side. Standard output gets the
//! answers and nothing else; whatever the program itself says goes to standard error.

mod columns;
mod command;
mod input;
mod settings;
mod speaker;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use luthier_data::{Message, Role};
use luthier_model::adapter::Chosen;
use luthier_model::{Decoder, Generator, Tuning};
use luthier_tensor::Precision;
use serde_json::json;

use self::command::{HELP, Line};
use self::input::Input;
use self::settings::ChatSettings;
use self::speaker::{Answer, Common, End, Speaker};
use crate::adapters::Adapters;
use crate::config::check_model;
use crate::generate::PrecisionArgument;
use crate::hub::{Wanted, locate};
use crate::machine::{Processor, available_bytes};
use crate::model::Model;
use crate::quantised::QuantisationArguments;
use crate::sampling::{KEYS, Sampling, SamplingArguments};
use crate::{Environment, eprint_line, fail, print_text, signals};

/// The context where the model does not say what it was made for.
const USUAL_CONTEXT: usize = 4096;

/// What follows `luthier chat`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A configuration such as LLaMA-Factory's examples/inference/*.yaml, and settings that win over it
    #[arg(value_name = "CONFIG.yaml | key=value")]
    settings: Vec<String>,
    /// A Hugging Face folder, a GGUF file, or org/name of the Hugging Face hub (org/name@revision, org/name:file.gguf)
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// A PEFT adapter: a folder, or org/name of the hub; several with commas between are added, and /adapter switches
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
    /// How much each adapter counts, such as 0.7,0.3 [default: 1 each]
    #[arg(long, value_name = "WEIGHTS", allow_hyphen_values = true)]
    adapter_weights: Option<String>,
    /// Answer each message without and with the adapter, side by side, with the same seed
    #[arg(long)]
    compare: bool,
    /// Answer this message and end
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A named chat template, of `luthier template list` [default: the model's own]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Most tokens of the conversation [default: what the model was made for and memory allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    context: Option<u32>,
    /// What is multiplied; auto: bf16 where the processor multiplies it
    #[arg(long, value_enum)]
    precision: Option<PrecisionArgument>,
    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
    #[command(flatten)]
    quantisation: QuantisationArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<ExitCode> {
    let settings = ChatSettings::read(arguments).map_err(fail)?;
    for notice in &settings.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let find = |setting: &str, text: &str, wanted| locate(setting, text, wanted, &settings.hub, &environment.hub);
    let model_path = find(settings.model_setting, &settings.model, Wanted::Model)?;
    let problems = check_model(&model_path, settings.model_setting).err().into_iter().collect();
    let adapters = Adapters::read(
        "adapter",
        settings.adapter.as_deref(),
        arguments.adapter_weights.as_deref(),
        &|text| find("adapter", text, Wanted::Adapter),
        problems,
    )?;
    signals::listen_in_between()?;
    let processor = Processor::choose(settings.threads, environment)?;
    let (precision, _) = processor.precision(settings.precision);
    let model = Model::open(&model_path)?.with(settings.quantisation, processor.threads)?;
    for note in &model.checkpoint.model.notes {
        eprint_line(&format!("note: {note}"));
    }
    if let Some(note) = QuantisationArguments::note(adapters.last_path(), settings.quantisation) {
        eprint_line(&format!("note: {note}"));
    }
    let tokenizer = model.tokenizer_with(adapters.last_path())?;
    let template = model.template(&settings.template, &tokenizer)?;
    for note in template.notes() {
        eprint_line(&format!("note: {note}"));
    }
    let (mut sampling, of_model) = settings
        .sampling(arguments, model.checkpoint.generation_config.as_ref(), &model.files.label)
        .map_err(|problem| fail(vec![problem]))?;
    sampling.stops.extend(template.stop_texts(&tokenizer));
    let mut ends = model.checkpoint.model.decoder.end_token_ids.clone();
    ends.extend(template.end_ids(&tokenizer));

    let device = processor.device(None)?;
    let plain = (arguments.compare || adapters.is_empty())
        .then(|| Decoder::new(&device, &model.checkpoint, &Tuning::Nothing, None))
        .transpose()?;
    let adapted = (!adapters.is_empty())
        .then(|| Decoder::with_adapters(&device, &model.checkpoint, &Tuning::Nothing, &adapters.loaded()))
        .transpose()?;
    // Those that cannot be in use together wait for /adapter.
    let chosen = match adapters.all() {
        Ok(all) => all,
        Err(error) => {
            eprint_line(&format!("note: {error:#}; the first adapter is in use, and /adapter switches"));
            Some([0].into())
        }
    };
    let decoders: Vec<(&'static str, &Decoder)> =
        [("without adapter", plain.as_ref()), ("with adapter", adapted.as_ref())]
            .into_iter()
            .filter_map(|(title, decoder)| Some((title, decoder?)))
            .collect();
    let prompt_rows = adapted.as_ref().map_or(0, Decoder::prompt_rows);
    let capacity = capacity(&model, precision, arguments.context, decoders.len(), prompt_rows)?;
    let mut speakers: Vec<Speaker<'_>> = decoders
        .into_iter()
        .map(|(title, decoder)| Speaker::new(title, Generator::new(&device, decoder, precision, capacity)))
        .collect();
    if let Some(adapted) = speakers.last_mut().filter(|_| chosen.is_some()) {
        adapted.choose(chosen.clone());
    }

    let decided = if of_model.is_empty() {
        String::new()
    } else {
        format!(" ({} from generation_config.json)", of_model.join(", "))
    };
    eprint_line(&format!(
        "model: {} ({}){}, {}, a context of {capacity} tokens",
        model.files.label,
        model.checkpoint.model.decoder.model_type,
        match adapters.paths.as_slice() {
            [] => String::new(),
            [path] => format!(", adapter {}", path.display()),
            _ => format!(", adapters {}", adapters.sum(&chosen)),
        },
        match precision {
            Precision::F32 => "fp32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "fp16",
        },
    ));
    eprint_line(&format!("sampling: {sampling}{decided}"));
    let common = Common {
        tokenizer: &tokenizer,
        template: &template,
        ends: &ends,
        vocabulary: model.checkpoint.model.decoder.vocabulary_size,
        capacity,
    };
    let mut chat = Chat {
        common,
        adapters: &adapters,
        chosen,
        speakers,
        system: settings.system.clone(),
        sampling,
        retries: 0,
        ends_with_answer: true,
        is_ended: false,
    };
    match &arguments.prompt {
        Some(prompt) => chat.say(prompt)?,
        None => chat.talk()?,
    }
    Ok(if chat.is_ended { ExitCode::from(signals::INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// How long a conversation may become: what was asked for, else what the model was made for, and what fits into memory.
fn capacity(
    model: &Model,
    precision: Precision,
    wanted: Option<u32>,
    speakers: usize,
    prompt_rows: usize,
) -> anyhow::Result<usize> {
    let decoder = &model.checkpoint.model.decoder;
    let layout = model.layout();
    let width = 2 * layout.key_value_heads * layout.head_dim * decoder.layers.len();
    let token_bytes = (precision.storage().bytes(width) * speakers).max(1) as u64;
    let fits = available_bytes().map_or(usize::MAX, |free| (free / 2 / token_bytes) as usize);
    // A learned prefix or prompt takes its positions first.
    let fits = fits.saturating_sub(prompt_rows);
    let made_for = decoder.max_positions.unwrap_or(USUAL_CONTEXT).saturating_sub(prompt_rows);
    match wanted.map(|wanted| wanted as usize) {
        Some(wanted) if wanted > fits => anyhow::bail!(
            "--context: {wanted} tokens need a cache of {:.1} GB, and memory for {fits} is free; ask for fewer",
            wanted as f64 * token_bytes as f64 / 1e9
        ),
        Some(wanted) => {
            if wanted > made_for {
                eprint_line(&format!(
                    "note: the model was made for {made_for} tokens; beyond them its answers get worse"
                ));
            }
            Ok(wanted)
        }
        None => {
            if fits < made_for {
                eprint_line(&format!("note: the model was made for {made_for} tokens, and memory for {fits} is free"));
            }
            Ok(made_for.min(fits).max(1))
        }
    }
}

/// A conversation in progress.
struct Chat<'a> {
    common: Common<'a>,
    adapters: &'a Adapters,
    /// Adapters in use.
    chosen: Chosen,
    speakers: Vec<Speaker<'a>>,
    system: Option<String>,
    sampling: Sampling,
    /// How often the last message was answered again.
    retries: u64,
    /// Whether a signal is the end of the conversation too, since nobody is there to go on with it.
    ends_with_answer: bool,
    is_ended: bool,
}

impl Chat<'_> {
    /// Reads lines until no more come.
    fn talk(&mut self) -> anyhow::Result<()> {
        let mut input = Input::open()?;
        self.ends_with_answer = !input.is_editor();
        if input.is_editor() {
            eprint_line("/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends");
        }
        while let (false, Some(text)) = (self.is_ended, input.next()?) {
            match Line::parse(&text) {
                Line::Exit => break,
                // What is wrong with one message does not end the conversation.
                line => self.take(line).unwrap_or_else(|error| eprint_line(&format!("error: {error:#}"))),
            }
        }
        Ok(())
    }

    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        match line {
            Line::Empty | Line::Exit => {}
            Line::Message(text) => return self.say(text),
            Line::Help => eprint_line(HELP),
            Line::Wrong(sentence) => eprint_line(&sentence),
            Line::Clear => {
                self.begin_again();
                eprint_line("the conversation begins again");
            }
            Line::System(None) => match &self.system {
                Some(system) => eprint_line(&format!("system message: {system}")),
                None => eprint_line("there is no system message; /system TEXT sets one"),
            },
            Line::System(Some(text)) => {
                self.system = Some(text.to_owned());
                self.begin_again();
                eprint_line("the system message is set, and the conversation begins again");
            }
            Line::Adapter(_) if self.adapters.is_empty() => {
                eprint_line("no adapter is loaded; luthier chat --adapter A,B loads some");
            }
            Line::Adapter(None) => eprint_line(&self.adapters.list(&self.chosen)),
            Line::Adapter(Some(words)) => match self.adapters.named(words) {
                Ok(chosen) => {
                    if let Some(speaker) = self.speakers.last_mut() {
                        speaker.choose(chosen.clone());
                    }
                    eprint_line(&format!("in use: {}", self.adapters.sum(&chosen)));
                    self.chosen = chosen;
                }
                Err(error) => eprint_line(&format!("/adapter: {error:#}")),
            },
            Line::Undo => match self.take_back() {
                Some(message) => eprint_line(&format!("taken back: {message}")),
                None => eprint_line("there is nothing to take back"),
            },
            Line::Retry => {
                let retries = self.retries + 1;
                let before: Vec<Vec<Message>> = self.speakers.iter().map(|speaker| speaker.turns.clone()).collect();
                let Some(message) = self.take_back() else {
                    eprint_line("there is no message to answer again");
                    return Ok(());
                };
                self.retries = retries;
                if self.sampling.sampler.temperature == 0.0 {
                    eprint_line("note: the temperature is 0, so every retry gives the same answer");
                }
                let answered = self.ask(&message);
                if !matches!(answered, Ok(true)) {
                    self.speakers.iter_mut().zip(before).for_each(|(speaker, turns)| speaker.turns = turns);
                    eprint_line("the earlier answer stays");
                }
                return answered.map(drop);
            }
            Line::Set(None) => eprint_line(&format!("{}", self.sampling)),
            Line::Set(Some((key, value))) => {
                let key = key.replace('-', "_");
                let is_cleared = key == "stop" && value == "none";
                if is_cleared {
                    self.sampling.stops.clear();
                }
                match if is_cleared { Ok(()) } else { self.sampling.set(&key, value) } {
                    Ok(()) => eprint_line(&format!("{}", self.sampling)),
                    Err(expected) if KEYS.contains(&key.as_str()) => {
                        eprint_line(&format!("/set: {key} is {value:?}; {expected}"));
                    }
                    Err(expected) => eprint_line(&format!("/set: there is no {key:?}; {expected}")),
                }
            }
            Line::Save(file) => return self.save(Path::new(file)),
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.speakers.iter_mut().for_each(|speaker| speaker.turns.clear());
        self.retries = 0;
    }

    /// Removes the last message and its answer from every side, and gives the message.
    fn take_back(&mut self) -> Option<String> {
        self.retries = 0;
        let mut message = None;
        for speaker in &mut self.speakers {
            let length = speaker.turns.len().saturating_sub(2);
            message = speaker.turns.drain(length..).next().map(|turn| turn.content).or(message);
        }
        message
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        self.retries = 0;
        if !self.ask(text)? {
            eprint_line("the message is taken back");
        }
        Ok(())
    }

    /// Gives `false` when the message was taken back.
    fn ask(&mut self, text: &str) -> anyhow::Result<bool> {
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let columns = width.filter(|width| columns::fit(*width) && std::io::stdout().is_terminal());
        let result = match columns {
            Some(width) if self.speakers.len() == 2 => self.ask_side_by_side(text, width),
            _ => self.ask_in_turn(text),
        };
        self.is_ended = self.ends_with_answer && signals::is_asked();
        signals::end();
        result
    }

    fn ask_in_turn(&mut self, text: &str) -> anyhow::Result<bool> {
        let titled = self.speakers.len() > 1;
        for index in 0..self.speakers.len() {
            if titled {
                print_text(&format!("[{}]\n", self.speakers[index].title));
            }
            let answer = self.answer(index, text, &mut |piece| print_text(piece))?;
            print_text("\n");
            report(&answer, "");
            if self.is_taken_back(index, &answer) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a stopped answer is none: it has no text, or the other side was not asked yet. Then the message goes too.
    fn is_taken_back(&mut self, index: usize, answer: &Answer) -> bool {
        let others = index + 1 < self.speakers.len();
        if answer.end != End::Interrupt || (!answer.text.is_empty() && !others) {
            return false;
        }
        self.forget_last(index + 1);
        true
    }

    /// Removes the last message and its answer from the first `count` sides.
    fn forget_last(&mut self, count: usize) {
        for speaker in &mut self.speakers[..count] {
            speaker.turns.truncate(speaker.turns.len().saturating_sub(2));
        }
    }

    fn ask_side_by_side(&mut self, text: &str, width: usize) -> anyhow::Result<bool> {
        let mut answers = Vec::new();
        for index in 0..self.speakers.len() {
            let mut characters = 0;
            let title = self.speakers[index].title;
            let answer = self.answer(index, text, &mut |piece| {
                characters += piece.chars().count();
                status(&format!("{title}: {characters} characters"));
            });
            status("");
            let answer = answer?;
            if self.is_taken_back(index, &answer) {
                return Ok(false);
            }
            answers.push(answer);
        }
        if let [left, right] = answers.as_slice() {
            let titles = [self.speakers[0].title, self.speakers[1].title];
            print_text(&columns::side_by_side(titles, [&left.text, &right.text], width));
            report(left, &format!("{}: ", titles[0]));
            report(right, &format!("{}: ", titles[1]));
        }
        Ok(true)
    }

    /// Lets one side answer.
    fn answer(&mut self, index: usize, text: &str, show: &mut dyn FnMut(&str)) -> anyhow::Result<Answer> {
        let speaker = &mut self.speakers[index];
        speaker.turns.push(Message::new(Role::User, text));
        signals::begin();
        let answer = speaker.answer(&self.common, self.system.as_deref(), &self.sampling, self.retries, show);
        if answer.is_err() {
            // No side keeps a message that another could not answer.
            self.forget_last(index);
        }
        answer
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        if path.exists() {
            anyhow::bail!("/save: {shown} is there already; choose another name");
        }
        // With two sides: the one with the adapter.
        let turns = self.speakers.last().map(|speaker| speaker.turns.as_slice()).unwrap_or_default();
        if turns.is_empty() {
            anyhow::bail!("/save: nothing has been said yet");
        }
        let system = self.system.as_deref().map(|system| Message::new(Role::System, system));
        let messages: Vec<&Message> = system.iter().chain(turns).collect();
        let text = format!("{:#}\n", json!([{ "messages": messages }]));
        luthier_files::write_atomically(path, |writer| writer.write_all(text.as_bytes()))?;
        let side = if self.speakers.len() > 1 { " (the side with the adapter)" } else { "" };
        eprint_line(&format!("saved to {shown}{side}"));
        Ok(())
    }
}

/// Says how an answer ended where that is not as usual, and to a person how fast it came.
fn report(answer: &Answer, of: &str) {
    let (dim, plain) = if std::io::stderr().is_terminal() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    let why = match answer.end {
        End::Model | End::StopText => None,
        End::Limit => Some("the answer was cut at max_new_tokens"),
        End::Context => Some("the answer was cut where the context is full"),
        End::Interrupt => Some("the answer was stopped"),
    };
    let speed = answer.tokens_per_second.map(|speed| format!(", {speed:.1} tokens/s")).unwrap_or_default();
    if !dim.is_empty() {
        let why = why.map(|why| format!("; {why}")).unwrap_or_default();
        eprint_line(&format!("{dim}{of}{} tokens{speed}{why}{plain}", answer.tokens));
    } else if let Some(why) = why {
        eprint_line(&format!("note: {of}{why}"));
    }
}

/// Writes over the terminal's last line.
fn status(text: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr().lock(), "\r\x1b[2K{text}");
    }
}
