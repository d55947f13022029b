#!/usr/bin/env bash
# Makes sure that what a target of the Makefile needs is on this machine.
#
#   need.sh run|check|test
#
# Debian packages are installed where we may (root, or sudo that asks nothing); otherwise they are
# named and the script fails. Rust and Node are the two things that must be there already.
set -euo pipefail

target=${1:?which target: run, check or test}

# probe | package | why. A probe is a command, a path where it starts with a slash, a shared
# library, or a module of Debian's Python.
run_packages='
cc                            | gcc             | compiles the C of aws-lc (TLS) and SQLite
/usr/include/stdio.h          | libc6-dev       | its headers
/etc/ssl/certs/ca-certificates.crt | ca-certificates | the roots by which an agent trusts a public hub
'
check_packages='
/usr/sbin/mariadbd            | mariadb-server  | every control-plane test runs on MariaDB too
'
test_packages='
chromium                      | chromium        | the browser of the stories and of the UI tests
/usr/share/fonts/truetype/dejavu | fonts-dejavu-core | a browser without any font draws no page
certutil                      | libnss3-tools   | makes that browser trust the development CA
ffmpeg                        | ffmpeg          | makes the videos that are played
/usr/sbin/nginx               | nginx-light     | a real origin
curl                          | curl            | a client that is not ours, over HTTP/1.1 and HTTP/2
h2load                        | nghttp2-client  | many HTTP/2 viewers at once
gtlsclient                    | ngtcp2-client   | a client that is not ours, over HTTP/3
library:libnss_wrapper        | libnss-wrapper  | lets that client find our names
slowhttptest                  | slowhttptest    | viewers who send and read as slowly as they can
python:ensurepip              | python3-venv    | makes the Python of tests/python
'

say() { printf '%s\n' "$*" >&2; }

have() {
  case $1 in
    /*) [ -e "$1" ] ;;
    library:*) compgen -G "/usr/lib/*/${1#library:}.so" >/dev/null || [ -e "/usr/lib/${1#library:}.so" ] ;;
    python:*) /usr/bin/python3 -c "import ${1#python:}" >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] ;;
  esac
}

# Debian calls it chromium; elsewhere it has other names, which the tests know too.
have_chromium() {
  have chromium || have chromium-browser || have google-chrome
}

toolchain() {
  have cargo || { say "Rust is missing: install it from rustup.rs (rust-version in Cargo.toml)"; exit 1; }
  if [ "$target" != run ]; then
    cargo fmt --version >/dev/null 2>&1 || { say "rustfmt is missing: rustup component add rustfmt"; exit 1; }
    cargo clippy --version >/dev/null 2>&1 || { say "clippy is missing: rustup component add clippy"; exit 1; }
  fi
  [ "$target" = check ] && return
  have node && have npm || { say "Node is missing: version 20 or newer, with npm"; exit 1; }
  node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' \
    || { say "Node $(node --version) is too old: version 20 or newer"; exit 1; }
}

list=$run_packages
case $target in
  run) ;;
  check) list+=$check_packages ;;
  test) list+=$check_packages$test_packages ;;
  *) say "unknown target $target"; exit 2 ;;
esac

toolchain
missing=()
while IFS='|' read -r probe package why; do
  probe=${probe//[[:space:]]/} package=${package//[[:space:]]/}
  [ -n "$probe" ] || continue
  if [ "$probe" = chromium ]; then have_chromium && continue; else have "$probe" && continue; fi
  say "missing: $package (${why# })"
  missing+=("$package")
done <<<"$list"
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    say "not root, so nothing was installed. As root: apt-get install ${missing[*]}"
    exit 1
  fi
fi
command -v apt-get >/dev/null 2>&1 || { say "no apt-get here: install them by hand: ${missing[*]}"; exit 1; }

say "installing: ${missing[*]}"
# A database server must not start by itself because a test wants its program.
export DEBIAN_FRONTEND=noninteractive
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get install -y --no-install-recommends "${missing[@]}")
"${as_root[@]}" apt-get update -q >&2 || say "apt-get update failed; trying the old lists"
"${install[@]}" >&2 || { say "apt-get could not install: ${missing[*]}"; exit 1; }
