//! Inputs from seeds: input N of a target is a function of N. Some are damaged a little, some much.

/// A random number that is a function of a count (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// The longest input.
const LONGEST: usize = 1 << 20;
/// Numbers at which counts, lengths and sizes break.
const EXTREMES: [u64; 12] =
    [0, 1, 0x7f, 0xff, 0xffff, 1 << 31, (1 << 31) - 1, 0xffff_ffff, 1 << 40, 1 << 63, (1 << 63) - 1, u64::MAX];
const WORDS: [&str; 22] = [
    "0",
    "-1",
    "1e308",
    "-0.0",
    "18446744073709551616",
    "9223372036854775807",
    "4294967295",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "NaN",
    "\\u0000",
    "\\ud800",
    "\u{fdd0}",
    "\u{2581}",
    "{%",
    "}}",
    " * 99999",
    "\"Sequence\"",
    "\u{feff}",
];

/// Input `number` of some seeds.
pub fn input(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Random(number.wrapping_mul(0xd134_2543_de82_ef95));
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..1 << random.below(5) {
        step(&mut bytes, seeds, &mut random);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn step(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    // Headers stand at the beginning of what is long.
    let reach = if random.below(2) == 0 { bytes.len() } else { bytes.len().min(2048) };
    let at = random.below(reach);
    let longest = 1 << random.below(12);
    let length = random.below((bytes.len() - at).min(longest) + 1);
    match random.below(11) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = random.number() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + length)),
        4 => {
            let part = bytes[at..at + length].to_vec();
            let most = 1 << random.below(8);
            let times = 1 + random.below(most);
            insert(bytes, at, &part.repeat(times.min(LONGEST / (length + 1))));
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let count = random.below(other.len() - from + 1);
            insert(bytes, at, &other[from..from + count]);
        }
        6 => number_in_text(bytes, at, random),
        7 => {
            let extreme = random.of(&EXTREMES).to_le_bytes();
            let width = random.of(&[1, 2, 4, 8]);
            for (byte, new) in bytes[at..].iter_mut().zip(&extreme[..width]) {
                *byte = *new;
            }
        }
        8 => insert(bytes, at, random.of(&WORDS).as_bytes()),
        9 => value_in_json(bytes, at, random),
        _ => {
            // Parts change places.
            let to = random.below(bytes.len() - length + 1);
            let part: Vec<u8> = bytes.drain(at..at + length).collect();
            insert(bytes, to.min(bytes.len()), &part);
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    drop(bytes.splice(at..at, part.iter().copied()));
}

/// The next number of a text becomes another.
fn number_in_text(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(from) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let count = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let new = match random.below(3) {
        0 => random.of(&EXTREMES).to_string(),
        1 => random.below(100).to_string(),
        _ => random.of(&WORDS).to_owned(),
    };
    drop(bytes.splice(from..from + count, new.into_bytes()));
}

/// What stands behind the next colon, up to a comma or the end of an object, becomes something else.
fn value_in_json(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(from) = bytes[at..].iter().position(|byte| *byte == b':').map(|found| at + found + 1) else { return };
    let count = bytes[from..].iter().take_while(|byte| !b",}]".contains(byte)).count();
    drop(bytes.splice(from..from + count, random.of(&WORDS).bytes()));
}

/// Makes an input smaller as long as it `fails`, with at most `tries` calls.
pub fn minimise(mut input: Vec<u8>, mut tries: usize, mut fails: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut length = input.len() / 2;
    while length > 0 && tries > 0 {
        let mut at = 0;
        while at < input.len() && tries > 0 {
            let mut smaller = input.clone();
            smaller.drain(at..(at + length).min(input.len()));
            tries -= 1;
            if fails(&smaller) {
                input = smaller;
            } else {
                at += length;
            }
        }
        length /= 2;
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_function_of_its_number() {
        let seeds = vec![b"{\"a\": 12}".to_vec(), vec![0; 40]];
        let inputs = |from: u64| (from..from + 300).map(|number| input(&seeds, number)).collect::<Vec<_>>();
        assert_eq!(inputs(0), inputs(0));
        let different: std::collections::HashSet<_> = inputs(0).into_iter().collect();
        assert!(different.len() > 200, "{}", different.len());
    }

    #[test]
    fn minimising_keeps_what_fails() {
        let small =
            minimise(b"aaaaaaXbbbbbbYcccc".to_vec(), 1000, |bytes| bytes.contains(&b'X') && bytes.contains(&b'Y'));
        assert_eq!(small, b"XY");
    }
}
