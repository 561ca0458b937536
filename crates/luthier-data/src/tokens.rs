//! Rows that are tokens already: another program's tokenising, or a benchmark's. `labels` has an entry for each token:
//! the token itself where it is trained, -100 where it is not; without `labels` every token is trained. `weights`, where
//! it is there, says for each token how much it counts in the loss.

use serde_json::{Map, Value};

use crate::dataset::Dataset;
use crate::error::Error;
use crate::example::{Example, Tokenized};
use crate::records::Record;
use crate::report::{LongRows, Origin};
use crate::truncate::Truncation;

const NOT_TRAINED: i64 = -100;

/// Reads one record; the error is the clause that says what is wrong with it.
pub(crate) fn read(object: &Map<String, Value>) -> Result<Example, String> {
    let ids = numbers(object, "input_ids")?.ok_or("\"input_ids\" is missing; expected a list of token ids")?;
    let ids: Vec<u32> = ids
        .into_iter()
        .map(|id| u32::try_from(id).map_err(|_| format!("\"input_ids\" has {id}; expected a token id")))
        .collect::<Result<_, _>>()?;
    let mut trained = match numbers(object, "labels")? {
        None => vec![true; ids.len()],
        Some(labels) if labels.len() != ids.len() => {
            return Err(format!("\"labels\" has {} entries, but \"input_ids\" has {}", labels.len(), ids.len()));
        }
        Some(labels) => {
            let differs = |(id, label): &(&u32, &i64)| **label != NOT_TRAINED && **label != i64::from(**id);
            if let Some((id, label)) = ids.iter().zip(&labels).find(differs) {
                return Err(format!("\"labels\" has {label} where the token is {id}; expected the token, or -100"));
            }
            labels.iter().map(|label| *label != NOT_TRAINED).collect()
        }
    };
    // Nothing stands before the first token that could predict it.
    if let Some(first) = trained.first_mut() {
        *first = false;
    }
    match weights(object)? {
        None => Ok(Example::new(ids, trained)),
        Some(weights) if weights.len() != ids.len() => {
            Err(format!("\"weights\" has {} entries, but \"input_ids\" has {}", weights.len(), ids.len()))
        }
        Some(mut weights) => {
            weights.iter_mut().zip(&trained).filter(|(_, trained)| !**trained).for_each(|(weight, _)| *weight = 0.0);
            Ok(Example::weighted(ids, weights))
        }
    }
}

fn weights(object: &Map<String, Value>) -> Result<Option<Vec<f32>>, String> {
    let Some(value) = object.get("weights").filter(|value| !value.is_null()) else { return Ok(None) };
    let weight = |value: &Value| value.as_f64().map(|weight| weight as f32).filter(|weight| is_weight(*weight));
    let list = value.as_array().and_then(|list| list.iter().map(weight).collect::<Option<Vec<_>>>());
    list.map(Some).ok_or_else(|| "\"weights\" is not a list of numbers of 0 or more".to_owned())
}

/// Whether a number can say how much something counts.
pub(crate) fn is_weight(number: f32) -> bool {
    number.is_finite() && number >= 0.0
}

fn numbers(object: &Map<String, Value>, key: &str) -> Result<Option<Vec<i64>>, String> {
    let Some(value) = object.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let list = value.as_array().and_then(|list| list.iter().map(Value::as_i64).collect::<Option<Vec<_>>>());
    list.map(Some).ok_or_else(|| format!("{key:?} is not a list of whole numbers"))
}

/// The rows of datasets that are tokens already, cut on the right at `cutoff_len`, which is all that can be done with them.
///
/// Errors: a record that is not tokens; rows that are too long, where that is an error.
pub fn take_tokens(datasets: Vec<Dataset>, cutoff_len: usize, truncation: Truncation) -> Result<Tokenized, Error> {
    let mut tokenized = Tokenized::default();
    let mut long_rows = LongRows::new(cutoff_len, truncation);
    for (number, mut dataset) in datasets.into_iter().enumerate() {
        for (index, record) in std::mem::take(&mut dataset.records).into_iter().enumerate() {
            let Record::Tokens(mut example) = record else {
                let problem = "it is text among records that are tokens already; keep the two apart".to_owned();
                let (dataset, record) = dataset.place(index);
                return Err(Error::Record { dataset: dataset.to_owned(), record, line: None, problem });
            };
            let (origin, before) = (Origin { dataset: number, record: index }, example.ids.len());
            let ends_trained = example.trained.last() == Some(&true);
            example.truncate(cutoff_len);
            if long_rows.keeps(&mut tokenized.report, &dataset, origin, before, example.ids.len()) {
                tokenized.report.replies_without_end += usize::from(before > cutoff_len && ends_trained);
                tokenized.push(example, Some(origin));
            }
        }
    }
    long_rows.finish()?;
    Ok(tokenized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record: &str, expected: Result<(&[u32], &[bool]), &str>) {
        let value: Value = serde_json::from_str(record).expect("JSON");
        let found = read(value.as_object().expect("an object"));
        let expected = expected.map(|(ids, trained)| Example::new(ids.to_vec(), trained.to_vec()));
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn labels_say_what_is_trained() {
        check(r#"{"input_ids": [5, 6, 7], "labels": [-100, 6, -100]}"#, Ok((&[5, 6, 7], &[false, true, false])));
        check(r#"{"input_ids": [5, 6]}"#, Ok((&[5, 6], &[false, true])));
    }

    #[test]
    fn weights_say_how_much_a_label_counts() {
        let read = |record: &str| {
            let value: Value = serde_json::from_str(record).expect("JSON");
            read(value.as_object().expect("an object"))
        };
        let weighted = read(r#"{"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, 8], "weights": [1, 0.5, 3, 0]}"#);
        let expected = Example {
            ids: vec![5, 6, 7, 8],
            trained: vec![false, true, false, false],
            weights: Some(vec![0.0, 0.5, 0.0, 0.0]),
        };
        assert_eq!(weighted, Ok(expected));
        let plain = Example::new(vec![5, 6, 7], vec![false, true, false]);
        assert_eq!(read(r#"{"input_ids": [5, 6, 7], "weights": [1, 1, 0]}"#), Ok(plain), "nothing is kept of ones");
        check(r#"{"input_ids": [5], "weights": [-1]}"#, Err("\"weights\" is not a list of numbers of 0 or more"));
        check(r#"{"input_ids": [5], "weights": []}"#, Err("\"weights\" has 0 entries, but \"input_ids\" has 1"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        check(r#"{"labels": []}"#, Err("\"input_ids\" is missing; expected a list of token ids"));
        check(r#"{"input_ids": [-1]}"#, Err("\"input_ids\" has -1; expected a token id"));
        check(r#"{"input_ids": ["a"]}"#, Err("\"input_ids\" is not a list of whole numbers"));
        check(
            r#"{"input_ids": [5], "labels": [6]}"#,
            Err("\"labels\" has 6 where the token is 5; expected the token, or -100"),
        );
        check(r#"{"input_ids": [5], "labels": []}"#, Err("\"labels\" has 0 entries, but \"input_ids\" has 1"));
    }
}
