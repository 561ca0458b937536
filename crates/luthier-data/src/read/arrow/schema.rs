//! The columns of an Arrow stream, and what each holds.

use super::Result;
use super::flatbuffer::Table;

/// A column, or a part of one.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) children: Vec<Field>,
    /// The dictionary that its values are in, and the type of places in it.
    pub(crate) dictionary: Option<(i64, Box<Kind>)>,
}

/// What is stored of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    /// A whole number of so many bytes.
    Int {
        bytes: usize,
        signed: bool,
    },
    Float,
    Double,
    Bool,
    /// Text or bytes, with offsets of so many bytes.
    Bytes(usize),
    /// Text or bytes, each where its view says.
    View,
    /// Values of so many bytes that are no number of ours.
    Fixed(usize),
    /// A list, with offsets of so many bytes.
    List(usize),
    FixedList(usize),
    Struct,
    Map,
}

const DEEPEST: usize = 32;
const MOST_FIELDS: usize = 10_000;

pub(crate) fn fields(schema: &Table) -> Result<Vec<Field>> {
    if schema.short(0)? != 0 {
        return Err("its numbers begin with their highest byte, which is not read".to_owned());
    }
    let mut left = MOST_FIELDS;
    schema.tables(1)?.iter().map(|field| read(field, 0, &mut left)).collect()
}

/// The field whose values a dictionary has.
pub(crate) fn of_dictionary(fields: &[Field], id: i64) -> Option<Field> {
    fields.iter().find_map(|field| match field.dictionary {
        Some((known, _)) if known == id => Some(Field { dictionary: None, ..field.clone() }),
        _ => of_dictionary(&field.children, id),
    })
}

fn read(field: &Table, depth: usize, left: &mut usize) -> Result<Field> {
    *left = left.checked_sub(1).filter(|_| depth < DEEPEST).ok_or("its schema is too large")?;
    let name = field.text(0)?;
    let kind = kind(field.byte(2)?, field.table(3)?, &name)?;
    let children = field.tables(5)?.iter().map(|child| read(child, depth + 1, left)).collect::<Result<Vec<_>>>()?;
    let lists = matches!(kind, Kind::List(_) | Kind::FixedList(_) | Kind::Map);
    if lists && children.len() != 1 {
        return Err(format!("its column {name} is a list of nothing"));
    }
    let dictionary = match field.table(4)? {
        None => None,
        Some(encoding) => {
            let places = match encoding.table(1)? {
                Some(int) => self::kind(2, Some(int), &name)?,
                None => Kind::Int { bytes: 4, signed: true },
            };
            Some((encoding.long(0)?, Box::new(places)))
        }
    };
    Ok(Field { name, kind, children, dictionary })
}

fn kind(number: u8, more: Option<Table>, name: &str) -> Result<Kind> {
    let int = |field: usize| more.as_ref().map_or(Ok(0), |more| more.int(field));
    let short = |field: usize| more.as_ref().map_or(Ok(0), |more| more.short(field));
    let size = |value: i32| usize::try_from(value).map_err(|_| format!("its column {name} has a negative size"));
    Ok(match number {
        1 => Kind::Null,
        2 => {
            let bytes = size(int(0)?)? / 8;
            if ![1, 2, 4, 8].contains(&bytes) {
                return Err(format!("its column {name} has numbers of {bytes} bytes"));
            }
            Kind::Int { bytes, signed: more.as_ref().map_or(Ok(0), |more| more.byte(1))? == 1 }
        }
        3 => match short(0)? {
            0 => Kind::Fixed(2),
            1 => Kind::Float,
            _ => Kind::Double,
        },
        4 | 5 => Kind::Bytes(4),
        6 => Kind::Bool,
        // Decimals have 128 bits where nothing is said.
        7 => Kind::Fixed(if int(2)? == 256 { 32 } else { 16 }),
        // Dates: days in four bytes (unit 0, written down since the other is the default), or milliseconds.
        8 => match more.as_ref().map_or(Ok(false), |more| more.has(0))? && short(0)? == 0 {
            true => Kind::Int { bytes: 4, signed: true },
            false => Kind::Int { bytes: 8, signed: true },
        },
        10 | 18 => Kind::Int { bytes: 8, signed: true },
        12 => Kind::List(4),
        13 => Kind::Struct,
        15 => Kind::Fixed(size(int(0)?)?),
        16 => Kind::FixedList(size(int(0)?)?),
        17 => Kind::Map,
        19 | 20 => Kind::Bytes(8),
        21 => Kind::List(8),
        23 | 24 => Kind::View,
        _ => return Err(format!("its column {name} has a type of Arrow's that is not read; drop the column")),
    })
}
