#!/usr/bin/env bash
# Makes the Python of the stories, target/python, with the packages of tests/python/requirements.txt
# and no others; prints the path of its interpreter.
#
# Made anew where the list has changed. `make check` does not need it.
set -euo pipefail
cd "$(dirname "$0")/../.."

list=tests/python/requirements.txt
home=${CARGO_TARGET_DIR:-target}/python
say() { printf '%s\n' "$*" >&2; }

# The list as installed is written last: where it is the same, all is there.
if ! cmp -s "$list" "$home/installed.txt" || ! "$home/bin/python" -c '' 2>/dev/null; then
  # Debian's own, which has python3-venv; elsewhere whichever is found.
  base=/usr/bin/python3
  [ -x "$base" ] || base=python3
  rm -rf "$home"
  say "making $home"
  "$base" -m venv "$home" >&2 || { say "no Python with venv: install python3-venv"; exit 1; }
  "$home/bin/pip" --disable-pip-version-check --no-input install --quiet --no-deps --only-binary :all: \
    --requirement "$list" >&2 || { say "pip could not install $list"; exit 1; }
  cp "$list" "$home/installed.txt"
fi
home=$(cd "$home" && pwd)
printf '%s\n' "$home/bin/python"
