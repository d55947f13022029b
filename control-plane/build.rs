//! Rebuilds the crate when the built UI changes, and makes sure its folder exists, so that the hub compiles without Node.

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web-ui/dist");
    // An empty folder embeds nothing, and `/app` then says how to build the UI. A read-only tree that lacks the folder is
    // served by the derive's `allow_missing`.
    let _ = std::fs::create_dir_all(&dist);
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed=../migrations");
}
