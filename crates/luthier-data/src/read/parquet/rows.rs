//! Columns back into rows. An entry's definition level says how much of its path is there, its repetition level which list it
//! goes on with; each column of a part that is missing has one entry for it.

use serde_json::{Map, Value};

use super::super::allowance::Allowance;
use super::Result;
use super::pages::Column;
use super::schema::{Content, Node, Repetition, Schema};

pub(crate) struct Rows<'s> {
    schema: &'s Schema,
    allowance: &'s Allowance,
    columns: Vec<Column>,
    /// The next entry of each column.
    at: Vec<usize>,
}

impl<'s> Rows<'s> {
    pub(crate) fn new(schema: &'s Schema, columns: Vec<Column>, allowance: &'s Allowance) -> Self {
        let at = vec![0; columns.len()];
        Self { schema, allowance, columns, at }
    }

    /// The next row.
    pub(crate) fn next(&mut self) -> Result<Value> {
        let mut row = Map::new();
        self.allowance.rows(1)?;
        for node in &self.schema.columns {
            self.allowance.cells(1, &node.name)?;
            row.insert(node.name.clone(), self.node(node)?);
        }
        Ok(Value::Object(row))
    }

    fn definition(&self, leaf: usize) -> Result<u32> {
        let column = &self.columns[leaf];
        if column.definitions.is_empty() && self.schema.leaves[leaf].definition == 0 {
            return Ok(0);
        }
        column.definitions.get(self.at[leaf]).copied().ok_or_else(|| "a column ends early".to_owned())
    }

    fn node(&mut self, node: &Node) -> Result<Value> {
        let missing = node.repetition != Repetition::Required && self.definition(node.leaves.start)? < node.definition;
        if missing {
            // One entry in each column says so.
            node.leaves.clone().for_each(|leaf| self.at[leaf] += 1);
        }
        match node.repetition {
            Repetition::Repeated if missing => Ok(Value::Array(Vec::new())),
            Repetition::Repeated => {
                let mut list = Vec::new();
                loop {
                    self.allowance.values(1, 0)?;
                    list.push(self.content(node)?);
                    let leaf = node.leaves.start;
                    let next = self.columns[leaf].repetitions.get(self.at[leaf]);
                    if next.is_none_or(|level| *level < node.level) {
                        return Ok(Value::Array(list));
                    }
                }
            }
            _ if missing => Ok(Value::Null),
            _ => self.content(node),
        }
    }

    fn content(&mut self, node: &Node) -> Result<Value> {
        match &node.content {
            Content::Leaf => {
                let leaf = node.leaves.start;
                self.at[leaf] += 1;
                self.columns[leaf].next_value(self.allowance)?.ok_or_else(|| "a column ends early".to_owned())
            }
            Content::Struct(children) => {
                let mut object = Map::new();
                for child in children {
                    self.allowance.cells(1, &child.name)?;
                    object.insert(child.name.clone(), self.node(child)?);
                }
                Ok(Value::Object(object))
            }
            Content::List(repeated) => {
                let list = self.node(repeated)?;
                // Around each element stands a group of its own, unless an old program wrote the file.
                let wrapped = matches!(&repeated.content, Content::Struct(children) if children.len() == 1)
                    && repeated.name != "array"
                    && repeated.name != format!("{}_tuple", node.name);
                match list {
                    Value::Array(list) if wrapped => Ok(list.into_iter().map(only).collect()),
                    list => Ok(list),
                }
            }
            Content::Map(repeated) => {
                let mut object = Map::new();
                if let Value::Array(list) = self.node(repeated)? {
                    for entry in list {
                        let Value::Object(entry) = entry else { continue };
                        let mut values = entry.into_iter().map(|(_, value)| value);
                        let key = match values.next() {
                            Some(Value::String(key)) => key,
                            key => key.unwrap_or_default().to_string(),
                        };
                        object.insert(key, values.next().unwrap_or_default());
                    }
                }
                Ok(Value::Object(object))
            }
        }
    }
}

/// The one value of an object.
fn only(value: Value) -> Value {
    match value {
        Value::Object(object) => object.into_iter().next().map_or(Value::Null, |(_, value)| value),
        other => other,
    }
}
