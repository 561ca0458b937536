//! Event files for TensorBoard: the scalars that transformers writes, under its names, after each line of the log and each
//! evaluation. What is not a finite number is left out.

mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use luthier_train::Event;

use crate::journal::Entry;
use crate::progress::Window;

const PREFIX: &str = "events.out.tfevents.";
/// How the names of our files end.
const SUFFIX: &str = ".luthier";

/// TensorBoard's reader of the events.
pub(crate) struct TensorBoard {
    file: File,
    window: Window,
    /// Seconds since 1970 at which the run would have begun if it had never paused.
    began: f64,
    /// What earlier sittings may have left; empty once there were scalars to compare with.
    older: Vec<PathBuf>,
}

impl TensorBoard {
    /// Begins a file in a folder, which is made, with the past of a run that is continued. The older files of the same run
    /// are removed: those of Luthier whose first scalars are the same to the bit, which is seen as soon as there are some.
    /// All other files stay. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When the file cannot be written; then the older ones are still there.
    pub(crate) fn resume(
        folder: &Path,
        every: usize,
        first_too: bool,
        now: f64,
        entries: &[Entry],
    ) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let older = files(folder)?;
        let mut window = Window::new(every, first_too);
        let past: Vec<Scalars> = entries.iter().filter_map(|entry| Scalars::of(&mut window, entry)).collect();
        window.begin_sitting();
        let began = now - entries.last().map_or(0.0, |entry| entry.elapsed_seconds);
        let mut board = Self { older, ..Self::begin(folder, window, now, began, &past)? };
        past.first().map_or(Ok(()), |first| board.remove_older(first))?;
        Ok(board)
    }

    fn begin(folder: &Path, window: Window, now: f64, began: f64, past: &[Scalars]) -> io::Result<Self> {
        let path = new_path(folder, now);
        luthier_files::write_atomically(&path, |writer| {
            writer.write_all(&record::version(began))?;
            past.iter().try_for_each(|scalars| writer.write_all(&scalars.record(began)))
        })
        .map_err(io::Error::other)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, window, began, older: Vec::new() })
    }

    /// Takes an event, and writes its scalars when they are due.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let Some(scalars) = Scalars::of(&mut self.window, entry) else { return Ok(()) };
        self.file.write_all(&scalars.record(self.began))?;
        self.remove_older(&scalars)
    }

    /// Removes the older files that begin with these scalars.
    fn remove_older(&mut self, first: &Scalars) -> io::Result<()> {
        for file in std::mem::take(&mut self.older) {
            if record::first_summary(&std::fs::read(&file)?) == Some((first.step, first.summary.as_slice())) {
                std::fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

/// Removes the files that earlier runs of Luthier left in a folder, if it is there.
///
/// # Errors
/// When one cannot be removed.
pub(crate) fn remove_older(folder: &Path) -> io::Result<()> {
    match files(folder) {
        Ok(files) => files.into_iter().try_for_each(std::fs::remove_file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Luthier's event files of a folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            found.push(path);
        }
    }
    Ok(found)
}

/// A name that no file has; TensorBoard reads the files of a folder in the order of their names.
fn new_path(folder: &Path, now: f64) -> PathBuf {
    let process = std::process::id();
    let mut second = now as u64;
    loop {
        let path = folder.join(format!("{PREFIX}{second:010}.{}.{process}{SUFFIX}", host_name()));
        if !path.exists() {
            return path;
        }
        second += 1;
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let clean: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if clean.is_empty() { "localhost".to_owned() } else { clean }
}

/// What is written after an event, encoded.
struct Scalars {
    elapsed_seconds: f64,
    step: u64,
    summary: Vec<u8>,
}

impl Scalars {
    fn of(window: &mut Window, entry: &Entry) -> Option<Self> {
        let (step, scalars) = match &entry.event {
            Event::Step(step) => {
                let (line, due) = window.push(step, entry.elapsed_seconds);
                let scalars = [
                    ("train/loss", line.loss),
                    ("train/grad_norm", line.gradient_norm),
                    ("train/learning_rate", line.learning_rate),
                    ("train/epoch", line.epoch),
                ];
                due.then_some((step.step, scalars))?
            }
            Event::Evaluation(event) => {
                window.evaluate(event, entry.elapsed_seconds);
                let scalars = [
                    ("eval/loss", event.loss),
                    ("eval/accuracy", event.accuracy),
                    ("eval/perplexity", event.perplexity()),
                    ("train/epoch", event.epoch),
                ];
                (event.step, scalars)
            }
            Event::Overflow(_) | Event::Warning { .. } => return None,
        };
        let finite: Vec<(&str, f32)> = scalars
            .into_iter()
            .map(|(tag, value)| (tag, value as f32))
            .filter(|(_, value)| value.is_finite())
            .collect();
        Some(Self { elapsed_seconds: entry.elapsed_seconds, step: step as u64, summary: record::summary(&finite) })
    }

    fn record(&self, began: f64) -> Vec<u8> {
        record::event(began + self.elapsed_seconds, self.step, &self.summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{event as step, journal};

    /// Wall time, step, and tags with their values.
    type Decoded = (f64, u64, Vec<(String, f32)>);

    /// Wall time, step and scalars of every record after the version, read as the format says and not as it was written.
    fn decode(path: &Path) -> Vec<Decoded> {
        let bytes = std::fs::read(path).expect("a file");
        let (mut at, mut events) = (0, Vec::new());
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let sum = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
            assert_eq!(sum(at + 8), table_checksum(&bytes[at..at + 8]));
            let content = &bytes[at + 12..at + 12 + length];
            assert_eq!(sum(at + 12 + length), table_checksum(content));
            at += length + 16;
            let (mut wall_time, mut number, mut values) = (0.0, 0, Vec::new());
            for (field, value) in fields(content) {
                match field {
                    1 => wall_time = f64::from_le_bytes(value.try_into().unwrap()),
                    2 => number = u64::from_le_bytes(value.try_into().unwrap()),
                    3 => assert_eq!(value, b"brain.Event:2"),
                    5 => values = fields(&value).into_iter().map(|(_, value)| scalar(&value)).collect(),
                    other => panic!("field {other}"),
                }
            }
            events.push((wall_time, number, values));
        }
        assert!(events.remove(0).2.is_empty(), "the first record is the version");
        events
    }

    fn scalar(value: &[u8]) -> (String, f32) {
        let fields = fields(value);
        let tag = String::from_utf8(fields[0].1.clone()).unwrap();
        (tag, f32::from_le_bytes(fields[1].1.clone().try_into().unwrap()))
    }

    /// Number and bytes of each field; a variable one as eight bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let head = bytes[0];
            bytes = &bytes[1..];
            let mut variable = || {
                let (mut number, mut shift) = (0u64, 0);
                loop {
                    let byte = bytes[0];
                    bytes = &bytes[1..];
                    number |= u64::from(byte & 127) << shift;
                    shift += 7;
                    if byte < 128 {
                        break number;
                    }
                }
            };
            let value = match head & 7 {
                0 => variable().to_le_bytes().to_vec(),
                kind => {
                    let length = match kind {
                        1 => 8,
                        2 => variable() as usize,
                        5 => 4,
                        other => panic!("storage {other}"),
                    };
                    let value = bytes[..length].to_vec();
                    bytes = &bytes[length..];
                    value
                }
            };
            found.push((head >> 3, value));
        }
        found
    }

    /// CRC-32C by a table of bytes, masked.
    fn table_checksum(bytes: &[u8]) -> u32 {
        let mut table = [0u32; 256];
        for (index, slot) in table.iter_mut().enumerate() {
            *slot = index as u32;
            for _ in 0..8 {
                *slot = if *slot % 2 == 1 { (*slot / 2) ^ 0x82f6_3b78 } else { *slot / 2 };
            }
        }
        let mut sum = u32::MAX;
        for byte in bytes {
            sum = table[((sum ^ u32::from(*byte)) % 256) as usize] ^ (sum / 256);
        }
        let sum = sum ^ u32::MAX;
        sum.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    fn only_file(folder: &Path) -> PathBuf {
        let files = files(folder).expect("a folder");
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn scalars_have_transformers_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut board = TensorBoard::resume(folder.path(), 2, false, 1000.0, &[]).expect("a file");
        journal().iter().for_each(|entry| board.entry(entry).expect("written"));
        let named =
            |pairs: &[(&str, f32)]| pairs.iter().map(|(tag, value)| (tag.to_string(), *value)).collect::<Vec<_>>();
        let train = |loss, epoch| {
            named(&[
                ("train/loss", loss),
                ("train/grad_norm", 1.5),
                ("train/learning_rate", 1e-4),
                ("train/epoch", epoch),
            ])
        };
        let evaluation = named(&[
            ("eval/loss", 1.25),
            ("eval/accuracy", 0.625),
            ("eval/perplexity", 1.25f64.exp() as f32),
            ("train/epoch", 1.0),
        ]);
        let expected = vec![(1004.0, 2, train(1.5, 1.0)), (1005.0, 2, evaluation), (1009.0, 4, train(1.0, 2.0))];
        assert_eq!(decode(&only_file(folder.path())), expected);
    }

    #[test]
    fn a_resumed_run_has_the_scalars_of_an_undisturbed_one_and_the_files_of_others_stay() {
        let (whole, parts) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let journal = journal();
        let mut board = TensorBoard::resume(whole.path(), 1, false, 1000.0, &[]).expect("a file");
        journal.iter().for_each(|entry| board.entry(entry).expect("written"));

        let mut board = TensorBoard::resume(parts.path(), 1, false, 1000.0, &[]).expect("a file");
        journal[..4].iter().for_each(|entry| board.entry(entry).expect("written"));
        let mut board = TensorBoard::resume(parts.path(), 1, false, 1003.0, &journal[..2]).expect("a file");
        journal[2..].iter().for_each(|entry| board.entry(entry).expect("written"));
        let scalars =
            |path: &Path| decode(path).into_iter().map(|(_, step, values)| (step, values)).collect::<Vec<_>>();
        assert_eq!(scalars(&only_file(parts.path())), scalars(&only_file(whole.path())));

        let other = Entry { elapsed_seconds: 1.0, event: Event::Step(step(1, 7.0)) };
        TensorBoard::resume(parts.path(), 1, false, 1000.0, &[]).expect("a file").entry(&other).expect("written");
        std::fs::write(parts.path().join("events.out.tfevents.1.host.1.0"), b"of another program").expect("written");
        TensorBoard::resume(parts.path(), 1, false, 2000.0, &journal).expect("a file");
        assert_eq!(std::fs::read_dir(parts.path()).expect("a folder").count(), 3);
        remove_older(parts.path()).expect("removed");
        assert_eq!(std::fs::read_dir(parts.path()).expect("a folder").count(), 1);
        remove_older(&parts.path().join("nowhere")).expect("nothing to remove");
    }

    #[test]
    fn a_loss_that_is_not_finite_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut board = TensorBoard::resume(folder.path(), 1, false, 0.0, &[]).expect("a file");
        board.entry(&Entry { elapsed_seconds: 1.0, event: Event::Step(step(300, f64::NAN)) }).expect("written");
        let events = decode(&only_file(folder.path()));
        assert_eq!((events[0].1, events[0].2[0].0.as_str()), (300, "train/grad_norm"));
    }
}
