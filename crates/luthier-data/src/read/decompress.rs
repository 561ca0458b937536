//! Takes gzip and zstd off a file, as its first bytes say.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::Stop;

/// The contents of a file, decompressed as they are read.
pub(crate) fn open<'r>(file: Box<dyn Read + 'r>) -> Result<Box<dyn BufRead + 'r>, Stop> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    match reader.fill_buf()? {
        [0x1f, 0x8b, ..] => Ok(Box::new(BufReader::new(MultiGzDecoder::new(reader)))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Box::new(BufReader::new(Frames { reader: Some(reader), frame: None }))),
        [b'B', b'Z', b'h', ..] => Err(compressed("bzip2", "bunzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(compressed("xz", "unxz")),
        _ => Ok(Box::new(reader)),
    }
}

fn compressed(with: &str, tool: &str) -> Stop {
    Stop::Broken(format!("it is compressed with {with}; unpack it with {tool}, or use gzip or zstd"))
}

/// zstd frames one after another, as tools that compress in parallel write them.
struct Frames<R: BufRead> {
    reader: Option<R>,
    frame: Option<Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>>,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.reader = self.frame.take().map(|frame| frame.into_inner());
            }
            let Some(mut reader) = self.reader.take() else { return Ok(0) };
            if reader.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let frame = StreamingDecoder::new(reader).map_err(std::io::Error::other)?;
            self.frame = Some(Box::new(frame));
        }
    }
}
