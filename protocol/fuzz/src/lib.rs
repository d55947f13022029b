//! What fuzzers do to us: each target takes any bytes, and panics where a promise is broken.
//!
//! The libFuzzer binary is in `libfuzzer/`, outside of the workspace, because it wants a nightly compiler; `run.sh` runs
//! it. The bytes that it found worth keeping are in `corpus/<target>/`, and `tests/corpus.rs` replays them everywhere.

mod control;
mod handshake;
mod header;
mod input;
mod legacy;
mod mux;
mod resolve;
mod token;
mod tunnel;
mod ws;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All targets. The names are those of the corpora's folders.
pub const TARGETS: [Target; 10] = [
    Target { name: "ws_frames", run: ws::frames },
    Target { name: "ws_handshake", run: handshake::run },
    Target { name: "mux_operations", run: mux::operations },
    Target { name: "mux_bytes", run: mux::bytes },
    Target { name: "control", run: control::run },
    Target { name: "token", run: token::run },
    Target { name: "stream_header", run: header::run },
    Target { name: "resolve", run: resolve::run },
    Target { name: "legacy_frames", run: legacy::frames },
    Target { name: "legacy_tunnel", run: tunnel::operations },
];
