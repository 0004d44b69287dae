//! Replays the committed seeds of every fuzz target, and the torture messages, through what the fuzzer runs.
//! A crash that fuzzing finds becomes a seed, so that it stays found.

use std::fs;
use std::path::{Path, PathBuf};

#[allow(unreachable_pub, reason = "in its own crate it is reached")]
#[path = "../tools/fuzz/src/lib.rs"]
mod fuzz_targets;

use fuzz_targets::{TARGETS, Target};

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Runs `target` on each file as it is, and on each of its beginnings: cut-short input is the commonest kind of bad.
fn replay(target: Target, directory: &Path) -> usize {
    let files = files(directory);
    for path in &files {
        let bytes = fs::read(path).unwrap();
        println!("{}", path.display()); // Shown only if the target panics.
        target(&bytes);
        (0..bytes.len()).for_each(|end| target(&bytes[..end]));
    }
    files.len()
}

#[test]
fn every_seed_of_every_target_is_survived() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, target) in TARGETS {
        assert!(replay(target, &root.join("tools/fuzz/corpus").join(name)) > 0, "{name} has no seeds");
    }
}

#[test]
fn the_torture_messages_are_survived_at_every_length() {
    let torture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rfc4475");
    assert!(replay(fuzz_targets::parsers::sip, &torture) >= 50);
}

/// A file named after a target that is not in the table would never be replayed.
#[test]
fn every_fuzz_target_and_every_corpus_is_in_the_table() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/fuzz");
    let in_table = |name: &str| TARGETS.iter().any(|(target, _)| *target == name);
    for path in files(&tools.join("fuzz_targets")) {
        assert!(in_table(&path.file_stem().unwrap().to_string_lossy()), "{}", path.display());
    }
    for entry in fs::read_dir(tools.join("corpus")).unwrap() {
        assert!(in_table(&entry.unwrap().file_name().to_string_lossy()));
    }
}
