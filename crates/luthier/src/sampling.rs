//! How the next token is chosen, as users say it: options of every command that generates, keys of a configuration,
//! `generation_config.json`, and `/set`. All of them go through [`Sampling::set`], so that all mean the same.

use luthier_model::Sampler;
use serde_json::Value;

/// The most tokens of an answer where nothing else is said.
const MOST_TOKENS: usize = 1024;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArguments {
    /// Evens out the probabilities above 1, sharpens them below; 0 takes the most likely token
    #[arg(long, value_name = "NUMBER", value_parser = text_of("temperature"))]
    temperature: Option<String>,
    /// Draw from the N most likely tokens; 0: from all
    #[arg(long, value_name = "N", value_parser = text_of("top_k"))]
    top_k: Option<String>,
    /// Draw from the most likely tokens that have this share of the probability together
    #[arg(long, value_name = "SHARE", value_parser = text_of("top_p"))]
    top_p: Option<String>,
    /// Draw from tokens that are at least this share as likely as the most likely one
    #[arg(long, value_name = "SHARE", value_parser = text_of("min_p"))]
    min_p: Option<String>,
    /// Makes tokens that were there before less likely, above 1
    #[arg(long, value_name = "NUMBER", value_parser = text_of("repetition_penalty"))]
    repetition_penalty: Option<String>,
    /// Where the random numbers come from [default: 42]
    #[arg(long, value_name = "N", value_parser = text_of("seed"))]
    seed: Option<String>,
    /// Most tokens to make [default: 128 for generate, 1024 for chat]
    #[arg(long, value_name = "N", value_parser = text_of("max_new_tokens"))]
    max_new_tokens: Option<String>,
    /// A text that ends the answer and is not shown; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = text_of("stop"))]
    stop: Vec<String>,
}

/// A parser that lets through what [`Sampling::set`] takes under this key.
fn text_of(key: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| Sampling::greedy(1).set(key, text).map(|()| text.to_owned())
}

/// How answers are made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sampling {
    pub(crate) sampler: Sampler,
    /// 1 or more.
    pub(crate) most_tokens: usize,
    /// Texts that end an answer; none is empty.
    pub(crate) stops: Vec<String>,
}

/// The keys of [`Sampling::set`].
pub(crate) const KEYS: [&str; 8] =
    ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "max_new_tokens", "stop"];

impl Sampling {
    /// The most likely token, always.
    pub(crate) fn greedy(most_tokens: usize) -> Self {
        Self { sampler: Sampler { seed: 42, ..Sampler::GREEDY }, most_tokens, stops: Vec::new() }
    }

    /// What LLaMA-Factory does where neither the model nor the user says anything.
    pub(crate) fn of_chat() -> Self {
        let greedy = Self::greedy(MOST_TOKENS);
        Self { sampler: Sampler { temperature: 0.95, top_k: 50, top_p: 0.7, ..greedy.sampler }, ..greedy }
    }

    /// Takes what a model's `generation_config.json` says; returns the keys that it decides, and a clause for each value that
    /// cannot be, which is left out: whoever chats did not write that file. Its `do_sample` counts where the user gives none.
    pub(crate) fn take_model(
        &mut self,
        generation_config: &Value,
        do_sample: Option<bool>,
    ) -> (Vec<&'static str>, Vec<String>) {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for key in KEYS.into_iter().filter(|key| !matches!(*key, "seed" | "stop")) {
            let value = &generation_config[key];
            if !value.is_null() {
                match self.set(key, &value.to_string()) {
                    Ok(()) => taken.push(key),
                    Err(error) => refused.push(format!("{key} is {value}; {error}")),
                }
            }
        }
        if do_sample.is_none() && generation_config["do_sample"] == false {
            self.sampler.temperature = 0.0;
            taken.retain(|key| *key != "temperature");
            taken.push("do_sample");
        }
        (taken, refused)
    }

    /// Takes what the options say; returns their keys.
    ///
    /// # Errors
    /// None that the options' parser has let through.
    pub(crate) fn take_arguments(&mut self, arguments: &SamplingArguments) -> Result<Vec<&'static str>, String> {
        let values = [
            ("temperature", &arguments.temperature),
            ("top_k", &arguments.top_k),
            ("top_p", &arguments.top_p),
            ("min_p", &arguments.min_p),
            ("repetition_penalty", &arguments.repetition_penalty),
            ("seed", &arguments.seed),
            ("max_new_tokens", &arguments.max_new_tokens),
        ];
        let given = values.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let mut taken = Vec::new();
        for (key, value) in given.chain(arguments.stop.iter().map(|stop| ("stop", stop))) {
            self.set(key, value)?;
            taken.push(key);
        }
        Ok(taken)
    }

    /// Sets one of [`KEYS`] from its text; a stop string is added.
    ///
    /// # Errors
    /// What was expected, as a clause.
    pub(crate) fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
        let sampler = &mut self.sampler;
        match key {
            "temperature" => sampler.temperature = number(text, 0.0, f64::MAX)?,
            "top_k" => sampler.top_k = whole(text, 0)?,
            "top_p" => sampler.top_p = number(text, 0.0, 1.0)?,
            "min_p" => sampler.min_p = number(text, 0.0, 1.0)?,
            "repetition_penalty" => {
                let penalty = number(text, 0.0, 1e6)?;
                if penalty == 0.0 {
                    return Err("expected a number above 0; 1 leaves every token as it is".to_owned());
                }
                sampler.repetition_penalty = penalty as f32;
            }
            "seed" => sampler.seed = whole(text, 0)? as u64,
            "max_new_tokens" => self.most_tokens = whole(text, 1)?,
            "stop" if text.is_empty() => return Err("expected a text".to_owned()),
            "stop" => self.stops.push(text.to_owned()),
            _ => return Err(format!("expected {}", crate::settings::either(&KEYS))),
        }
        Ok(())
    }

    /// The sampler of an answer that was asked for again so often.
    pub(crate) fn sampler(&self, retries: u64) -> Sampler {
        Sampler { seed: self.sampler.seed.wrapping_add(retries), ..self.sampler }
    }
}

impl std::fmt::Display for Sampling {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sampler { temperature, top_k, top_p, min_p, repetition_penalty, seed } = self.sampler;
        if temperature == 0.0 {
            write!(out, "temperature 0 (the most likely token, always)")?;
        } else {
            write!(out, "temperature {temperature}, top_k {top_k}, top_p {top_p}, min_p {min_p}")?;
        }
        write!(out, ", repetition_penalty {repetition_penalty}")?;
        if temperature != 0.0 {
            write!(out, ", seed {seed}")?;
        }
        write!(out, ", max_new_tokens {}", self.most_tokens)?;
        for stop in &self.stops {
            write!(out, ", stop {stop:?}")?;
        }
        Ok(())
    }
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let found = text.trim().parse().ok().filter(|value| (least..=most).contains(value));
    found.ok_or_else(|| match most {
        1.0 => "expected a number from 0 to 1".to_owned(),
        _ => "expected a number of 0 or more".to_owned(),
    })
}

fn whole(text: &str, least: usize) -> Result<usize, String> {
    let found = text.trim().parse().ok().filter(|value| *value >= least);
    found.ok_or_else(|| format!("expected a whole number of {least} or more"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_models_own_values_are_taken() {
        let mut sampling = Sampling::of_chat();
        let config = json!({ "temperature": 0.6, "top_k": 20, "top_p": null, "do_sample": true, "eos_token_id": 2 });
        assert_eq!(sampling.take_model(&config, None), (vec!["temperature", "top_k"], vec![]));
        assert_eq!(
            sampling.to_string(),
            "temperature 0.6, top_k 20, top_p 0.7, min_p 0, repetition_penalty 1, seed 42, max_new_tokens 1024"
        );
        assert_eq!(
            sampling.take_model(&json!({ "temperature": 0.6, "do_sample": false }), None),
            (vec!["do_sample"], vec![])
        );
        assert_eq!(
            sampling.to_string(),
            "temperature 0 (the most likely token, always), repetition_penalty 1, max_new_tokens 1024"
        );
        assert_eq!(
            sampling.take_model(&json!({ "top_p": "most" }), None),
            (vec![], vec!["top_p is \"most\"; expected a number from 0 to 1".to_owned()])
        );
    }

    #[test]
    fn values_are_checked() {
        let mut sampling = Sampling::greedy(8);
        for (key, text, expected) in [
            ("temperature", "-1", "expected a number of 0 or more"),
            ("temperature", "hot", "expected a number of 0 or more"),
            ("temperature", "nan", "expected a number of 0 or more"),
            ("top_p", "1.5", "expected a number from 0 to 1"),
            ("top_k", "-2", "expected a whole number of 0 or more"),
            ("max_new_tokens", "0", "expected a whole number of 1 or more"),
            ("repetition_penalty", "0", "expected a number above 0; 1 leaves every token as it is"),
            ("stop", "", "expected a text"),
            (
                "colour",
                "blue",
                "expected temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens or stop",
            ),
        ] {
            assert_eq!(sampling.set(key, text), Err(expected.to_owned()), "{key} {text}");
        }
        assert_eq!(sampling, Sampling::greedy(8));
        for key in KEYS {
            assert_eq!(sampling.set(key, "1"), Ok(()), "{key}");
        }
    }

    #[test]
    fn a_retry_has_a_seed_of_its_own() {
        let sampling = Sampling::of_chat();
        assert_eq!((sampling.sampler(0).seed, sampling.sampler(2).seed), (42, 44));
    }
}
