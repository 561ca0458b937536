//! The columns of a Parquet file as a tree, and what each leaf holds.

use super::Result;
use super::thrift::Thrift;

/// The tree of columns.
#[derive(Debug)]
pub(crate) struct Schema {
    /// The columns of a row.
    pub(crate) columns: Vec<Node>,
    /// What is stored, in the order of the file.
    pub(crate) leaves: Vec<Leaf>,
}

/// A column, or a part of one.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) repetition: Repetition,
    /// The definition level from which on it is there.
    pub(crate) definition: u32,
    /// The repetition level at which it is repeated.
    pub(crate) level: u32,
    pub(crate) content: Content,
    /// Its first leaf, and the one behind its last.
    pub(crate) leaves: std::ops::Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repetition {
    Required,
    Optional,
    Repeated,
}

#[derive(Debug)]
pub(crate) enum Content {
    Leaf,
    Struct(Vec<Node>),
    /// A group around a repeated one: a list of what is in that.
    List(Box<Node>),
    /// A group around repeated keys and values.
    Map(Box<Node>),
}

/// What is stored of a column.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) name: String,
    pub(crate) physical: Physical,
    pub(crate) unsigned: bool,
    pub(crate) definition: u32,
    pub(crate) level: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    Int32,
    Int64,
    Int96,
    Float,
    Double,
    Bytes,
    Fixed(usize),
}

/// How deep columns may lie in one another.
const DEEPEST: usize = 32;

impl Schema {
    pub(crate) fn of(metadata: &Thrift) -> Result<Self> {
        let elements = metadata.list(2)?;
        let mut builder = Builder { elements, at: 0, leaves: Vec::new() };
        let root = builder.next()?;
        let count = root.count(5)?;
        let columns = builder.children(count, 0, 0, 0)?;
        if columns.is_empty() {
            return Err("it has no columns".to_owned());
        }
        Ok(Self { columns, leaves: builder.leaves })
    }
}

struct Builder<'t, 'b> {
    elements: &'t [Thrift<'b>],
    at: usize,
    leaves: Vec<Leaf>,
}

impl<'t, 'b> Builder<'t, 'b> {
    fn next(&mut self) -> Result<&'t Thrift<'b>> {
        let element = self.elements.get(self.at).ok_or("its schema ends early")?;
        self.at += 1;
        Ok(element)
    }

    fn children(&mut self, count: usize, definition: u32, level: u32, depth: usize) -> Result<Vec<Node>> {
        if depth > DEEPEST || count > self.elements.len() {
            return Err("its schema is nested too deep".to_owned());
        }
        (0..count).map(|_| self.node(definition, level, depth)).collect()
    }

    fn node(&mut self, definition: u32, level: u32, depth: usize) -> Result<Node> {
        let element = self.next()?;
        let name = element.text(4)?;
        let repetition = match element.optional_int(3) {
            Some(1) => Repetition::Optional,
            Some(2) => Repetition::Repeated,
            _ => Repetition::Required,
        };
        let definition = definition + u32::from(repetition != Repetition::Required);
        let level = level + u32::from(repetition == Repetition::Repeated);
        let first = self.leaves.len();
        let converted = element.optional_int(6);
        let logical = |kind| element.field(10).is_some_and(|logical| logical.field(kind).is_some());
        let content = match element.optional_int(5) {
            Some(count) if element.optional_int(1).is_none() => {
                let count = usize::try_from(count).map_err(|_| "its schema has a negative number of columns")?;
                let mut children = self.children(count, definition, level, depth + 1)?;
                if children.is_empty() {
                    return Err(format!("its column {name} has no columns in it"));
                }
                let around = children.len() == 1 && children[0].repetition == Repetition::Repeated;
                let list = around && (converted == Some(3) || logical(3));
                let map = around && (matches!(converted, Some(1 | 2)) || logical(2));
                match children.pop() {
                    Some(child) if list => Content::List(Box::new(child)),
                    Some(child) if map => Content::Map(Box::new(child)),
                    last => {
                        children.extend(last);
                        Content::Struct(children)
                    }
                }
            }
            _ => {
                self.leaf(element, &name, definition, level)?;
                Content::Leaf
            }
        };
        Ok(Node { name, repetition, definition, level, content, leaves: first..self.leaves.len() })
    }

    fn leaf(&mut self, element: &Thrift, name: &str, definition: u32, level: u32) -> Result<()> {
        let physical = match element.int(1)? {
            0 => Physical::Boolean,
            1 => Physical::Int32,
            2 => Physical::Int64,
            3 => Physical::Int96,
            4 => Physical::Float,
            5 => Physical::Double,
            6 => Physical::Bytes,
            7 => Physical::Fixed(element.count(2)?),
            other => return Err(format!("its column {name} has the unknown type {other}")),
        };
        let integer = element.field(10).and_then(|logical| logical.field(10));
        let unsigned = matches!(element.optional_int(6), Some(11..=14))
            || integer.and_then(|integer| integer.switch(2)) == Some(false);
        self.leaves.push(Leaf { name: name.to_owned(), physical, unsigned, definition, level });
        Ok(())
    }
}
