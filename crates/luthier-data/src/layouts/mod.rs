//! One file for each way that a record can be laid out: a JSON object into a record, or the clause that says what is wrong.

pub(crate) mod alpaca;
pub(crate) mod message;
pub(crate) mod messages;
pub(crate) mod prompt;
