//! Takes gzip and zstd off a file, as its first bytes say. What unpacks to far more than text does is an error: a few bytes
//! would fill the memory.

use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::Stop;
use super::allowance::Allowance;

/// The contents of a file, decompressed as they are read.
pub(crate) fn open<'r>(file: Box<dyn Read + 'r>) -> Result<Box<dyn BufRead + 'r>, Stop> {
    open_within(file, Allowance::of(0))
}

fn open_within<'r>(file: Box<dyn Read + 'r>, allowance: Allowance) -> Result<Box<dyn BufRead + 'r>, Stop> {
    let allowance = Rc::new(allowance);
    let mut reader = BufReader::with_capacity(1 << 16, Packed { file, allowance: allowance.clone() });
    let unpacked: Box<dyn Read + 'r> = match reader.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(Frames { reader: Some(reader), frame: None }),
        [b'B', b'Z', b'h', ..] => return Err(compressed("bzip2", "bunzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(compressed("xz", "unxz")),
        _ => return Ok(Box::new(reader)),
    };
    Ok(Box::new(BufReader::new(Unpacked { reader: unpacked, allowance })))
}

fn compressed(with: &str, tool: &str) -> Stop {
    Stop::Broken(format!("it is compressed with {with}; unpack it with {tool}, or use gzip or zstd"))
}

/// A file, whose every byte allows for more.
struct Packed<R> {
    file: R,
    allowance: Rc<Allowance>,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.allowance.grow(read);
        Ok(read)
    }
}

/// What is unpacked, as far as it is allowed.
struct Unpacked<R> {
    reader: R,
    allowance: Rc<Allowance>,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.allowance.bytes(read).map_err(std::io::Error::other)?;
        Ok(read)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A zstd frame of blocks of four bytes, of which each stands for 128 KB of blanks.
    fn blanks(blocks: usize) -> Vec<u8> {
        const SIZE: u32 = 128 << 10;
        let block = |last: u32| [&((SIZE << 3) | 0b010 | last).to_le_bytes()[..3], b" "].concat();
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
        [&frame[..], &block(0).repeat(blocks - 1), &block(1)].concat()
    }

    #[test]
    fn what_unpacks_to_far_more_is_refused() {
        let unpacked = |allowance: usize| {
            let file = blanks(8);
            let mut reader = open_within(Box::new(&file[..]), Allowance::just(allowance)).ok()?;
            Some(reader.read_to_end(&mut Vec::new()).map_err(|error| error.to_string()))
        };
        assert_eq!(unpacked(2 << 20), Some(Ok(1 << 20)));
        assert_eq!(
            unpacked(1 << 19),
            Some(Err(
                "it unpacks to more than 1000 times its size and 512 MB; expected records, which do not shrink as much"
                    .to_owned()
            ))
        );
    }
}
