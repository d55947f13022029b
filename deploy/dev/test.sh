#!/usr/bin/env bash
# Runs the suites and counts them.
#
#   test.sh check       format, clippy, the crates' tests on both databases; no Node
#   test.sh test        check, the web UI, the browser tests, the whole-house stories
#   test.sh test-slow   the stories at their full size (10 GiB, 30 s, 64 viewers)
#
# A suite that fails does not keep the others from running; a build that fails ends the run. The
# last line counts; the exit code is 0 only where nothing failed.
#
# All Rust is built once: one profile (dev), the whole workspace with the same features and flags
# for programs and tests. `-D warnings` is given to clippy alone, since RUSTFLAGS would build it all again.
set -uo pipefail
cd "$(dirname "$0")/../.."
suite=${1:?which suite: check, test or test-slow}

# A CI machine may have no HOME, or one that nobody can write to; browsers and npm want one.
if [ ! -w "${HOME:-/nonexistent}" ]; then
  export CARGO_HOME=${CARGO_HOME:-${HOME:-/root}/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-${HOME:-/root}/.rustup}
  HOME=$(mktemp -d) && export HOME
fi
export PATH=$PATH:/usr/sbin:/sbin
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} NO_COLOR=1
unset RUSTFLAGS
exec </dev/null

# Both databases for every suite: start the one that is a server once, for all of them.
if [ -z "${PHLIX_TEST_MARIADB:-}" ]; then
  exec deploy/dev/with-mariadb.sh deploy/dev/test.sh "$suite"
fi

log=$(mktemp) && trap 'rm -f "$log"' EXIT
passed=0 failed=0 broken=()
sqlite=0 mariadb=0

# Runs one suite, shows and keeps what it prints. Sets `status`.
run() {
  local name=$1 start=$SECONDS
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  printf -- '--- %s: %s in %d s\n' "$name" "$([ "$status" -eq 0 ] && echo ok || echo "FAILED ($status)")" $((SECONDS - start))
  [ "$status" -eq 0 ] || broken+=("$name")
}

# The Python of the stories, which find it in PHLIX_TEST_PYTHON.
python() {
  must "Python" deploy/dev/python.sh
  PHLIX_TEST_PYTHON=$(deploy/dev/python.sh) && export PHLIX_TEST_PYTHON
}

# A check that passes or fails as a whole.
whole() {
  run "$@"
  if [ "$status" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# A step without which nothing after it makes sense.
must() {
  whole "$@"
  [ "$status" -eq 0 ] || close
}

# Cargo's tests, counted one by one.
cargo_tests() {
  run "$@"
  local ok bad
  read -r ok bad < <(awk '/^test result:/ { ok += $4; bad += $6 } END { print ok + 0, bad + 0 }' "$log")
  passed=$((passed + ok)) failed=$((failed + bad))
  # A crash or a test binary that never came to its result.
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then failed=$((failed + 1)); fi
  if [ "$status" -eq 0 ] && [ "$ok" -eq 0 ]; then
    echo "no test ran"
    failed=$((failed + 1)) broken+=("$1 ran no test")
  fi
}

# The control plane's tests, told apart by the database that their names tell.
count_databases() {
  read -r sqlite mariadb < <(awk '
    /Running / { ours = /phlix_control_plane/ || /control-plane\/tests/ }
    ours && /^test .*\.\.\. ok$/ { if (/sqlite/) s++; if (/mariadb/) m++ }
    END { print s + 0, m + 0 }' "$log")
  printf 'control-plane tests that ran: %d on SQLite, %d on MariaDB\n' "$sqlite" "$mariadb"
  if [ "$sqlite" -eq 0 ] || [ "$mariadb" -eq 0 ]; then
    failed=$((failed + 1)) broken+=("control-plane tests on both databases")
  fi
}

# Vitest and the browser tests, counted by the lines that they close with.
node_tests() {
  run "$@"
  local ok bad
  read -r ok bad < <(awk '
    /^ *Tests +/ { for (i = 2; i <= NF; i++) { if ($i == "passed") ok += $(i-1); if ($i == "failed") bad += $(i-1) } }
    /^ok  / { ok++ }
    /^FAILED  / { bad++ }
    END { print ok + 0, bad + 0 }' "$log")
  passed=$((passed + ok)) failed=$((failed + bad))
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then failed=$((failed + 1)); fi
  if [ "$status" -eq 0 ] && [ "$ok" -eq 0 ]; then
    echo "no test ran"
    failed=$((failed + 1)) broken+=("$1 ran no test")
  fi
}

close() {
  printf '\n'
  [ $((sqlite + mariadb)) -eq 0 ] || printf 'control-plane tests: %d on SQLite, %d on MariaDB\n' "$sqlite" "$mariadb"
  local name
  for name in "${broken[@]}"; do printf 'FAILED: %s\n' "$name"; done
  printf 'took %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ] && exit 0
  exit 1
}

case $suite in
  check)
    whole "format" cargo fmt --all -- --check
    must "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo_tests "crates" cargo test --workspace --exclude phlix-tests --locked --no-fail-fast
    count_databases
    cargo_tests "house" cargo test --workspace --locked --test house
    ;;
  test)
    whole "format" cargo fmt --all -- --check
    must "web UI: packages and build" deploy/dev/web-ui.sh
    whole "web UI: lint" npm --prefix web-ui run lint
    whole "web UI: types" npm --prefix web-ui run typecheck
    whole "web UI: generated client" npm --prefix web-ui run check:gen
    node_tests "web UI: unit tests" npm --prefix web-ui test
    python
    must "build" cargo build --workspace --all-targets --locked
    must "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo_tests "all Rust tests" cargo test --workspace --locked --no-fail-fast
    count_databases
    node_tests "web UI: browser tests" npm --prefix web-ui run e2e
    ;;
  test-slow)
    must "web UI: packages and build" deploy/dev/web-ui.sh
    python
    must "build" cargo build --workspace --all-targets --locked
    export PHLIX_TEST_FULL=1
    cargo_tests "stories at full size" cargo test --workspace --locked --no-fail-fast --test '*'
    # The CPU of a debug build says nothing.
    must "build for release" cargo build --release --locked -p phlix
    PHLIX_TEST_RELEASE=1 cargo_tests "costs" cargo test --workspace --locked --test legacy_cost -- --nocapture
    ;;
  *)
    echo "unknown suite $suite" >&2
    exit 2
    ;;
esac
close
