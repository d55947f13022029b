#!/bin/sh
# Fuzzes one target for some seconds: `protocol/fuzz/run.sh mux_operations 300`. Wants a nightly compiler and a C++ one.
# What it finds worth keeping stays in libfuzzer/work/TARGET; `protocol/fuzz/run.sh TARGET keep` puts the least of it that
# reaches all the same places into corpus/TARGET. A crash is written to libfuzzer/work/crashes.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${1:?which target}
seconds=${2:-60}
work=$here/libfuzzer/work
mkdir -p "$work/$target" "$work/crashes" "$here/corpus/$target"

# Coverage by edges and by what is compared, and the address sanitizer.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing"
flags="$flags -Ccodegen-units=1 -Zsanitizer=address"
host=$(rustc -vV | sed -n 's/^host: //p')
cd "$here/libfuzzer"
# With a target of its own, build scripts are built without the flags.
RUSTFLAGS="$flags" cargo +nightly build --release --target "$host"
binary=${CARGO_TARGET_DIR:-target}/$host/release/target

export PHLIX_FUZZ_TARGET="$target"
set -- -max_len=4096 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$work/crashes/$target-"
if [ "$seconds" = keep ]; then
    # Small first: one input for each feature.
    exec "$binary" "$@" -merge=1 -set_cover_merge=1 "$here/corpus/$target" "$work/$target"
fi
exec "$binary" "$@" -max_total_time="$seconds" -print_final_stats=1 "$work/$target" "$here/corpus/$target"
