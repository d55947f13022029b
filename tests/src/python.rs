//! The Python of `tests/python`: clients that are not ours, where Rust has none or none that would
//! send what a story wants sent.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A script of `tests/python`, to be given its arguments and run.
///
/// # Panics
/// Where there is no such Python: it is made by `deploy/dev/python.sh`.
pub fn script(name: &str) -> Command {
    let mut command = Command::new(interpreter());
    // Unbuffered (a story waits for lines), and no `__pycache__` in the tree.
    command.args(["-u", "-B"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name));
    command
}

/// What `PHLIX_TEST_PYTHON` names, else the one beside the build that runs now.
fn interpreter() -> PathBuf {
    let given = std::env::var_os("PHLIX_TEST_PYTHON").map(PathBuf::from);
    let found = given.clone().unwrap_or_else(|| {
        // target/debug/deps/story-0123 -> target/python/bin/python
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(3).unwrap().join("python/bin/python")
    });
    assert!(
        found.exists(),
        "the Python of the stories is missing: {} ({}); make it with deploy/dev/python.sh",
        found.display(),
        if given.is_some() { "named by PHLIX_TEST_PYTHON" } else { "PHLIX_TEST_PYTHON names none" }
    );
    found
}
