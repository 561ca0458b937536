//! A JSON array, value by value: the array as a whole is never in memory.

use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;

use super::{Item, Sink, Stop};

pub(crate) fn array(reader: &mut dyn BufRead, sink: &mut Sink) -> Result<(), Stop> {
    let mut values = Values { sink, given: 0, enough: false };
    let mut deserializer = serde_json::Deserializer::from_reader(reader);
    let result = (&mut values).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match result {
        Ok(()) => Ok(()),
        Err(_) if values.enough => Err(Stop::Enough),
        Err(error) => {
            let cut = if error.is_eof() { "it is cut off: " } else { "it is not valid JSON: " };
            Err(Stop::Broken(format!("{cut}after record {}: {error}", values.given)))
        }
    }
}

struct Values<'v, 's> {
    sink: &'v mut Sink<'s>,
    given: usize,
    enough: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Values<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Values<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(value) = list.next_element::<Value>()? {
            self.given += 1;
            if (self.sink)(Item { line: None, value: Ok(value) }).is_break() {
                self.enough = true;
                return Err(A::Error::custom("enough"));
            }
        }
        Ok(())
    }
}
