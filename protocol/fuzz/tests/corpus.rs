//! Every input that a fuzzer once found worth keeping is done again, with the compiler that everybody has.

use std::fs;
use std::path::Path;

use phlix_fuzz::TARGETS;

#[test]
fn every_kept_input_is_borne() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let inputs: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("a folder can be read").path())
            .collect();
        assert!(!inputs.is_empty(), "{} has no inputs", target.name);
        for input in inputs {
            // Told when it fails: captured otherwise.
            println!("{}", input.display());
            (target.run)(&fs::read(&input).expect("a file can be read"));
        }
    }
}

#[test]
fn no_target_minds_nothing_or_one_byte() {
    for target in TARGETS {
        (target.run)(&[]);
        (0..=255).for_each(|byte| (target.run)(&[byte]));
    }
}
