//! Files into values, one at a time, whatever they are kept in: JSON, lines of JSON, CSV, TSV, Parquet, Arrow or text, each also
//! under gzip or zstd. What a file is follows from its first bytes, and where these cannot say, from its name.
//!
//! A value that cannot be read is handed on with the reason where the next one can still be found (a line). Where it cannot (a
//! file that is cut off), reading ends with an error that says so.

mod allowance;
mod arrow;
mod csv;
mod decompress;
mod json;
mod lines;
mod parquet;

use std::io::{BufRead, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;

/// The columns of text that is no table: what a line of a text file is called.
pub(crate) const TEXT_COLUMN: &str = "text";

/// One value of a file.
pub(crate) struct Item {
    /// The line that it stands on, from 1, where a file has lines.
    pub(crate) line: Option<usize>,
    /// The value, or what it was and why it is none.
    pub(crate) value: Result<Value, Damaged>,
}

/// What could not be read.
pub(crate) struct Damaged {
    /// What is wrong, as a clause.
    pub(crate) problem: String,
    /// What stands there, as far as it is text.
    pub(crate) raw: String,
}

/// Takes values until it has enough.
pub(crate) type Sink<'s> = dyn FnMut(Item) -> ControlFlow<()> + 's;

/// What ends the reading of a file: a clause, or the sink that has enough.
pub(crate) enum Stop {
    Enough,
    Broken(String),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(format!("reading it failed: {error}"))
    }
}

impl From<ControlFlow<()>> for Stop {
    fn from(_: ControlFlow<()>) -> Self {
        Self::Enough
    }
}

/// Hands a value to the sink.
pub(crate) fn give(sink: &mut Sink, item: Item) -> Result<(), Stop> {
    if sink(item).is_break() { Err(Stop::Enough) } else { Ok(()) }
}

/// Reads a file.
///
/// Errors: it cannot be opened; it is damaged so that what follows cannot be found.
pub(crate) fn file(path: &Path, sink: &mut Sink) -> Result<(), Error> {
    let file = std::fs::File::open(path).map_err(|cause| Error::Read { path: path.to_owned(), cause })?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    reader(&path.display().to_string(), &name, Box::new(file), sink)
}

/// Reads what a file of that name has in it; `shown` names it in messages.
pub(crate) fn reader<'r>(shown: &str, name: &str, file: Box<dyn Read + 'r>, sink: &mut Sink) -> Result<(), Error> {
    match contents(name, file, sink) {
        Ok(()) | Err(Stop::Enough) => Ok(()),
        Err(Stop::Broken(problem)) => Err(Error::DataFile { file: shown.to_owned(), problem }),
    }
}

fn contents<'r>(name: &str, file: Box<dyn Read + 'r>, sink: &mut Sink) -> Result<(), Stop> {
    let mut reader = decompress::open(file)?;
    let kind = Container::of_name(name);
    let start = reader.fill_buf()?;
    match start {
        [b'P', b'A', b'R', b'1', ..] => return parquet::read(&all(reader)?, sink),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xff, 0xff, 0xff, 0xff, ..] => {
            return arrow::read(&all(reader)?, sink);
        }
        [b'P', b'K', 3, 4, ..] => {
            let problem = "it is a zip archive or a workbook; unpack it, or save its sheet as CSV";
            return Err(Stop::Broken(problem.to_owned()));
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            let text = utf16(&all(reader)?)?;
            return text_contents(kind, &mut text.as_bytes(), sink);
        }
        [0xef, 0xbb, 0xbf, ..] => reader.consume(3),
        _ => {}
    }
    if let Some(Container::Parquet | Container::Arrow) = kind {
        return Err(Stop::Broken(format!("it does not begin as {name} should; it is damaged or something else")));
    }
    text_contents(kind, &mut *reader, sink)
}

fn text_contents(kind: Option<Container>, reader: &mut dyn BufRead, sink: &mut Sink) -> Result<(), Stop> {
    match kind {
        Some(Container::Csv) => csv::read(reader, b',', sink),
        Some(Container::Tsv) => csv::read(reader, b'\t', sink),
        Some(Container::Text) => lines::text(reader, sink),
        _ => {
            let blanks = lines::skip_blanks(reader)?;
            match reader.fill_buf()?.first() {
                Some(b'[') => json::array(reader, sink),
                _ => lines::json(reader, blanks, sink),
            }
        }
    }
}

fn all(mut reader: Box<dyn BufRead + '_>) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn utf16(bytes: &[u8]) -> Result<String, Stop> {
    let (mark, rest) = bytes.split_at(2);
    let unit = |pair: &[u8]| {
        let pair = [pair[0], pair.get(1).copied().unwrap_or_default()];
        if mark == [0xff, 0xfe] { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
    };
    char::decode_utf16(rest.chunks(2).map(unit))
        .collect::<Result<String, _>>()
        .map_err(|error| Stop::Broken(format!("it begins as UTF-16 and is not ({error}); save it as UTF-8")))
}

/// What a file's name says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    Json,
    Csv,
    Tsv,
    Parquet,
    Arrow,
    Text,
}

/// Endings of names of data files.
pub(crate) const ENDINGS: [(&str, Container); 9] = [
    ("json", Container::Json),
    ("jsonl", Container::Json),
    ("ndjson", Container::Json),
    ("csv", Container::Csv),
    ("tsv", Container::Tsv),
    ("tab", Container::Tsv),
    ("parquet", Container::Parquet),
    ("arrow", Container::Arrow),
    ("txt", Container::Text),
];

impl Container {
    /// By the ending of a name, also before `.gz` and `.zst`.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        let (_, ending) = name.rsplit_once('.')?;
        ENDINGS.iter().find(|(known, _)| *known == ending).map(|(_, container)| *container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of a file, those that are damaged as their problem.
    fn values(name: &str, bytes: &[u8]) -> Result<Vec<Result<Value, String>>, String> {
        let mut values = Vec::new();
        let mut sink = |item: Item| {
            values.push(item.value.map_err(|damaged| damaged.problem));
            ControlFlow::Continue(())
        };
        reader(name, name, Box::new(bytes), &mut sink).map_err(|error| error.to_string())?;
        Ok(values)
    }

    fn table(name: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables").join(name);
        std::fs::read(path).expect("a table of the tests")
    }

    fn same_rows(name: &str) {
        let expected = values("rows.jsonl", &table("rows.jsonl")).expect("lines");
        let found = values(name, &table(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.len(), expected.len(), "{name}");
        for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let (Ok(Value::Object(found)), Ok(Value::Object(expected))) = (found, expected) else {
                panic!("{name} {row}")
            };
            for (key, value) in found {
                assert_eq!(Some(value), expected.get(key), "{name}, row {row}, {key}");
            }
        }
    }

    /// What pyarrow wrote (tests/tables/make.py) is what the lines of JSON beside it say.
    #[test]
    fn tables_as_pyarrow_wrote_them() {
        for name in ["none", "snappy", "gzip", "zstd", "v2", "plain", "delta"] {
            same_rows(&format!("{name}.parquet"));
        }
        for name in ["stream", "file", "zstd", "views"] {
            same_rows(&format!("{name}.arrow"));
        }
    }

    #[test]
    fn what_is_not_read_of_tables_is_named() {
        let refused = |name: &str| values(name, &table(name)).expect_err("refused");
        assert_eq!(
            refused("brotli.parquet"),
            "brotli.parquet: it is no whole Parquet file: it is compressed with Brotli; write it with Snappy, gzip or zstd \
             (column instruction), in the rows after record 0"
        );
        assert_eq!(
            refused("lz4.arrow"),
            "lz4.arrow: it is damaged: it is compressed with LZ4, which is not read; write it with zstd or without, after \
             record 0"
        );
    }

    /// The rows of a table that has many of them, and the error at its end.
    fn count(name: &str) -> (usize, Result<(), String>) {
        let mut rows = 0;
        let bytes = table(name);
        let read = reader(name, name, Box::new(&bytes[..]), &mut |_| {
            rows += 1;
            ControlFlow::Continue(())
        });
        (rows, read.map_err(|error| error.to_string()))
    }

    #[test]
    fn few_bytes_may_stand_for_many_rows_but_not_without_end() {
        assert!(table("large/million.parquet").len() < 10_000);
        assert_eq!(count("large/million.parquet"), (1_000_000, Ok(())));
        for name in ["large/nothing.parquet", "large/nothing.arrow"] {
            let (rows, error) = count(name);
            let error = error.expect_err("it is refused");
            assert!(
                rows < 5_000_000 && error.contains("it unpacks to more than 1000 times its size"),
                "{rows} {error}"
            );
        }
    }

    /// No cut and no changed byte of a table makes the reader panic or take memory without end.
    #[test]
    fn damaged_tables_are_errors_or_rows() {
        for name in ["snappy.parquet", "delta.parquet", "v2.parquet", "stream.arrow", "views.arrow", "zstd.arrow"] {
            let whole = table(name);
            for cut in (0..whole.len()).step_by(97) {
                assert!(values(name, &whole[..cut]).map_or(true, |rows| rows.len() < 40), "{name} cut at {cut}");
            }
            let mut state = 1_u64;
            for _ in 0..400 {
                let mut changed = whole.clone();
                for _ in 0..3 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let at = (state >> 33) as usize % changed.len();
                    changed[at] = (state >> 17) as u8;
                }
                let _ = values(name, &changed);
            }
        }
    }

    #[test]
    fn the_same_lines_under_gzip_and_zstd() {
        use std::io::Write;
        let lines = b"{\"a\": 1}\n{\"a\": 2}\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(lines).expect("compressed");
        let gzip = gzip.finish().expect("compressed");
        let zstd = ruzstd::encoding::compress_to_vec(&lines[..], ruzstd::encoding::CompressionLevel::Fastest);
        let plain = values("a.jsonl", lines).expect("lines");
        assert_eq!(plain.len(), 2);
        // Both may be several files put end to end.
        for packed in [&gzip, &zstd] {
            assert_eq!(values("a.jsonl", packed).expect("lines"), plain);
            assert_eq!(values("a.jsonl", &packed.repeat(2)).expect("lines").len(), 4);
            assert!(values("a.jsonl", &packed[..packed.len() - 9]).is_err());
        }
    }

    #[test]
    fn tables_of_text() {
        let csv = "instruction,output\n\"a, \"\"b\"\"\nc\",7\n,\nx\n";
        let found = values("a.csv", csv.as_bytes()).expect("a table");
        let row = |text: &str| Ok(serde_json::from_str(text).expect("JSON"));
        assert_eq!(found[0], row(r#"{"instruction": "a, \"b\"\nc", "output": "7"}"#));
        assert_eq!(found[1], row(r#"{"instruction": "", "output": ""}"#));
        assert_eq!(found[2], Err("it has 1 values, and there are 2 columns".to_owned()));
        assert_eq!(values("a.tsv", b"a\tb\n1\t2\n").expect("a table"), [row(r#"{"a": "1", "b": "2"}"#)]);
    }

    #[test]
    fn texts_in_other_codings() {
        let utf16: Vec<u8> = "\u{feff}{\"a\": \"ü\"}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(values("a.jsonl", &utf16).expect("lines").len(), 1);
        let found = values("a.jsonl", b"{\"a\": \"\xfc\"}\n{\"a\": 1}\n").expect("lines");
        assert_eq!(found[0], Err("it is not UTF-8 text: byte 8 of it belongs to no character".to_owned()));
        assert!(found[1].is_ok());
    }

    #[test]
    fn what_holds_no_records_is_said() {
        let refused = |name: &str, bytes: &[u8]| values(name, bytes).expect_err("refused");
        assert_eq!(
            refused("a.json", b"[{\"a\": 1}, {\"a\": "),
            "a.json: it is cut off: after record 1: EOF while parsing a value at line 1 column 17"
        );
        assert_eq!(
            refused("a.json", b"{\n \"a\": 1\n}\n"),
            "a.json: it is one JSON object over several lines; expected a list of records, [{...}, {...}], or a record on each \
             line"
        );
        assert!(refused("a.xlsx", b"PK\x03\x04").contains("save its sheet as CSV"));
        assert!(refused("a.json", b"\xfd7zXZ\0").contains("xz"));
        assert!(refused("a.parquet", b"hello").contains("does not begin"));
    }
}
