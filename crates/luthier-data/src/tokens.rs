//! Rows that are tokens already: another program's tokenising, or a benchmark's. `labels` has an entry for each token:
//! the token itself where it is trained, -100 where it is not; without `labels` every token is trained.

use serde_json::{Map, Value};

use crate::dataset::Dataset;
use crate::error::Error;
use crate::example::{Example, Origin, Tokenized};
use crate::records::Record;

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
    Ok(Example { ids, trained })
}

fn numbers(object: &Map<String, Value>, key: &str) -> Result<Option<Vec<i64>>, String> {
    let Some(value) = object.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let list = value.as_array().and_then(|list| list.iter().map(Value::as_i64).collect::<Option<Vec<_>>>());
    list.map(Some).ok_or_else(|| format!("{key:?} is not a list of whole numbers"))
}

/// The rows of datasets that are tokens already, cut on the right at `cutoff_len`.
///
/// Errors: a record that is not tokens.
pub fn take_tokens(datasets: Vec<Dataset>, cutoff_len: usize) -> Result<Tokenized, Error> {
    let mut tokenized = Tokenized::default();
    for (number, mut dataset) in datasets.into_iter().enumerate() {
        for (index, record) in std::mem::take(&mut dataset.records).into_iter().enumerate() {
            let Record::Tokens(mut example) = record else {
                let problem = "it is text among records that are tokens already; keep the two apart".to_owned();
                let (dataset, record) = dataset.place(index);
                return Err(Error::Record { dataset: dataset.to_owned(), record, line: None, problem });
            };
            if example.ids.len() > cutoff_len {
                tokenized.report.rows_truncated += 1;
                tokenized.report.replies_without_end += usize::from(example.trained.last() == Some(&true));
                example.ids.truncate(cutoff_len);
                example.trained.truncate(cutoff_len);
            }
            tokenized.push(example, Some(Origin { dataset: number, record: index }));
        }
    }
    Ok(tokenized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record: &str, expected: Result<(&[u32], &[bool]), &str>) {
        let value: Value = serde_json::from_str(record).expect("JSON");
        let found = read(value.as_object().expect("an object"));
        let expected = expected.map(|(ids, trained)| Example { ids: ids.to_vec(), trained: trained.to_vec() });
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn labels_say_what_is_trained() {
        check(r#"{"input_ids": [5, 6, 7], "labels": [-100, 6, -100]}"#, Ok((&[5, 6, 7], &[false, true, false])));
        check(r#"{"input_ids": [5, 6]}"#, Ok((&[5, 6], &[false, true])));
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
