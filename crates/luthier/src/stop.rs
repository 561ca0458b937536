//! Stop strings in a stream of text: an answer ends before the first of them, and nothing of one is ever shown, also when
//! it comes in pieces.

/// What is held back until it is certain.
pub(crate) struct StopFilter<'a> {
    stops: &'a [String],
    held: String,
}

impl<'a> StopFilter<'a> {
    /// None of `stops` is empty.
    pub(crate) fn new(stops: &'a [String]) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece; gives what can be shown, and whether a stop string came.
    pub(crate) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let ends = self.held.char_indices().map(|(at, _)| at);
        let certain = ends.into_iter().find(|at| begins(&self.held[*at..])).unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is left when no more text comes.
    pub(crate) fn finish(self) -> String {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes the pieces; `|` stands in the result where a piece ended.
    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], expected: &str) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut filter = StopFilter::new(&stops);
        let mut shown = String::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            shown.push_str(&text);
            if stopped {
                assert_eq!(shown, expected);
                return;
            }
            shown.push('|');
        }
        shown.push_str(&filter.finish());
        assert_eq!(shown, expected);
    }

    #[test]
    fn nothing_of_a_stop_string_is_shown() {
        check(&["END"], &["abcENDdef"], "abc");
        check(&["END"], &["ab", "cE", "N", "D", "def"], "ab|c||");
        check(&["END"], &["abE", "Nx"], "ab|ENx|");
        check(&["END"], &["abEN"], "ab|EN");
        check(&["\n\n", "User:"], &["a\n", "Us", "er", ": b"], "a|\n||");
        check(&["aab"], &["aaab"], "a");
        check(&["aab"], &["aa", "ab"], "|a");
        check(&[], &["a", "b"], "a|b|");
    }

    #[test]
    fn the_first_in_the_text_counts() {
        check(&["d", "bc"], &["abcd"], "a");
    }

    #[test]
    fn characters_are_not_cut() {
        check(&["ünd"], &["mü", "sü"], "m|üs|ü");
    }
}
