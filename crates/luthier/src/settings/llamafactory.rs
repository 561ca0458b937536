//! Tests that hold the table against LLaMA-Factory: every key of its command line is here, with its default, or with the
//! reason for another one. `llamafactory.tsv` is written by `cargo xtask llamafactory` from its sources (0.9.5) and those
//! of transformers (5.6.0): a key and its default a line.

use super::file::Raw;
use super::table::SETTINGS;
use super::{Kind, Value, find};

const KEYS: &str = include_str!("llamafactory.tsv");

fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    KEYS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'))
}

#[test]
fn every_key_is_in_the_table() {
    assert!(keys().count() > 300, "the list is cut off");
    let missing: Vec<_> = keys().map(|(key, _)| key).filter(|key| find(key).is_none()).collect();
    assert!(missing.is_empty(), "not in the table: {}", missing.join(", "));
}

#[test]
fn a_default_that_differs_has_a_reason() {
    for (key, theirs) in keys() {
        let Some(setting) = find(key) else { continue };
        let parsed = match theirs {
            "" => Ok(Value::Unset),
            _ => setting.parse(&Raw::Text(theirs.to_owned())),
        };
        let same = parsed.as_ref().is_ok_and(|value| *value == setting.default_value());
        let said = setting.differs.is_some_and(|difference| !difference.why.is_empty());
        assert!(same || said, "{key} is {theirs:?} there and {:?} here, without a reason", setting.default);
    }
}

#[test]
fn only_keys_that_are_not_there_are_our_own() {
    for setting in SETTINGS.iter().filter(|setting| setting.ours) {
        assert!(keys().all(|(key, _)| key != setting.name), "{} is LLaMA-Factory's too", setting.name);
    }
}

#[test]
fn a_difference_says_what_holds_on_both_sides() {
    for setting in SETTINGS {
        let Some(difference) = setting.differs else { continue };
        assert!(!(difference.here.is_empty() && setting.default.is_empty()), "{}", setting.name);
        assert!(!difference.there.is_empty() && difference.why.ends_with('.'), "{}", setting.name);
        assert!(setting.kind != Kind::Anything, "{}", setting.name);
    }
}
