//! Each target for some hundred inputs, and every input that once broke something.

use std::path::Path;

use luthier_fuzz::guard::{self, Counting, Limits};
use luthier_fuzz::{TARGETS, mutate};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_SECONDS: f64 = 20.0;
/// Inputs of each target: about a second.
const INPUTS: u64 = 300;

/// One test, since the limits are those of the process.
#[test]
fn no_input_breaks_a_target() {
    guard::watch(101, |text| {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{text}");
    });
    let regressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut known = 0;
    for target in TARGETS {
        let limits = Limits { seconds: MOST_SECONDS, bytes: target.most_bytes };
        let seeds = (target.seeds)();
        for (number, seed) in seeds.iter().enumerate() {
            guard::run(target.run, seed, limits, None)
                .unwrap_or_else(|error| panic!("{}, seed {number}: {error}", target.name));
        }
        let mut files: Vec<_> =
            std::fs::read_dir(regressions.join(target.name)).into_iter().flatten().flatten().collect();
        files.sort_by_key(std::fs::DirEntry::path);
        for file in files {
            let path = file.path();
            let input = std::fs::read(&path).expect("the file is read");
            guard::run(target.run, &input, limits, None).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            known += 1;
        }
        let place = std::env::temp_dir().join(format!("luthier-fuzz-{}", target.name));
        for number in 0..INPUTS {
            let input = mutate::input(&seeds, number);
            guard::run(target.run, &input, limits, Some(place.clone()))
                .unwrap_or_else(|error| panic!("{}, input {number}: {error}", target.name));
        }
    }
    assert!(known > 0, "the inputs that once broke something are there");
}
