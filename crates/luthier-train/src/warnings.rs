//! Warnings that one look is enough for: before a run begins, and after it has ended.

use crate::Event;
use crate::monitor::warning;

/// Share of the memory above which a run is in danger.
const MEMORY_SHARE: f64 = 0.8;

/// What a method trains, as far as its learning rate is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trained {
    /// Small matrices beside the weights, such as LoRA's.
    Adapter,
    /// Weights of the model, all or some.
    Weights,
}

/// `memory_above_80_percent`, when a run takes, or will take, more than that of the memory that there is.
pub fn memory_warning(used_bytes: u64, total_bytes: u64) -> Option<Event> {
    let share = used_bytes as f64 / total_bytes as f64;
    // An unknown total is 0, and the share no number or infinite.
    (share.is_finite() && share > MEMORY_SHARE).then(|| {
        warning(
            "memory_above_80_percent",
            format!(
                "the run takes {:.1} GB, {:.0} % of the memory, and the system may end it; lower cutoff_len or token_budget, \
                 use finetuning_type: lora, set gradient_checkpointing: true, or close other programs",
                used_bytes as f64 / 1e9,
                share * 100.0
            ),
        )
    })
}

/// `rate_outside_recommended_range`, when the learning rate is one that seldom works for what is trained.
pub fn rate_warning(trained: Trained, learning_rate: f64) -> Option<Event> {
    let (what, least, most) = match trained {
        // An adapter begins at nothing and has to get somewhere.
        Trained::Adapter => ("an adapter", 3e-5, 1e-4),
        // Weights are where they should be but for a little.
        Trained::Weights => ("the model's own weights", 1e-7, 1e-4),
    };
    let trouble = match learning_rate {
        rate if rate < least => "so low that little will be learned",
        rate if rate > most => "so high that the training may break or the model forget what it knows",
        _ => return None,
    };
    Some(warning(
        "rate_outside_recommended_range",
        format!("learning_rate is {learning_rate:e}, {trouble}; for {what} {least:e} to {most:e} is recommended"),
    ))
}

/// `adapter_has_no_effect`, when all norms of an adapter's updates are 0: the tuned model is the base model.
pub fn adapter_warning(update_norms: &[f64]) -> Option<Event> {
    let does_nothing = !update_norms.is_empty() && update_norms.iter().all(|norm| *norm == 0.0);
    does_nothing.then(|| {
        warning(
            "adapter_has_no_effect",
            "the adapter changes nothing, so the tuned model answers as the base model does; check that learning_rate is \
             not 0, that steps were not left out, and that rows have tokens to train"
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of a warning of this name.
    fn message(warning: Option<Event>, expected: &str) -> String {
        match warning {
            Some(Event::Warning { name, message }) if name == expected => message,
            other => panic!("expected {expected}, found {other:?}"),
        }
    }

    #[test]
    fn memory_is_compared_with_four_fifths() {
        let said = message(memory_warning(9_000_000_000, 10_000_000_000), "memory_above_80_percent");
        assert!(said.contains("9.0 GB, 90 %") && said.contains("cutoff_len"), "{said}");
        assert_eq!(memory_warning(8_000_000_000, 10_000_000_000), None);
        assert_eq!((memory_warning(1, 0), memory_warning(0, 0)), (None, None));
    }

    #[test]
    fn rates_are_judged_by_what_is_trained() {
        let name = "rate_outside_recommended_range";
        let low = message(rate_warning(Trained::Adapter, 1e-6), name);
        assert_eq!(
            low,
            "learning_rate is 1e-6, so low that little will be learned; for an adapter 3e-5 to 1e-4 is recommended"
        );
        assert!(message(rate_warning(Trained::Weights, 1e-3), name).contains("so high"));
        for rate in [3e-5, 5e-5, 1e-4] {
            assert_eq!(rate_warning(Trained::Adapter, rate), None, "{rate}");
        }
        for rate in [1e-7, 1e-5, 1e-4] {
            assert_eq!(rate_warning(Trained::Weights, rate), None, "{rate}");
        }
    }

    #[test]
    fn an_adapter_of_zeros_does_nothing() {
        assert!(message(adapter_warning(&[0.0, 0.0]), "adapter_has_no_effect").contains("learning_rate"));
        assert_eq!(adapter_warning(&[0.0, 1e-9]), None);
        // There is none, or it is broken, which is another matter.
        assert_eq!((adapter_warning(&[]), adapter_warning(&[f64::NAN, 0.0])), (None, None));
    }
}
